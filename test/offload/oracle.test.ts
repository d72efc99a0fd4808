// Our segmentation against other people's: the kernel's own, byte for byte, and tshark's judgement of every checksum.
// 10 000 seeds: `npm run offload-oracle`.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { command, lacks } from '../support/command.js';
import { compareWithKernel, kernelUnavailable, oracleProgram } from './oracle.js';

const SEEDS = 600;
const without = kernelUnavailable();
if (without !== undefined) process.stderr.write(`left out the comparison with the kernel: ${without}\n`);

let program = '';
beforeAll(async () => {
  program = await oracleProgram();
}, 300_000);

describe.skipIf(without !== undefined)('the kernel', () => {
  test(`cuts ${SEEDS} random superframes into the same packets`, { timeout: 120_000 }, async () => {
    const first = Date.now() % 1_000_000;
    const { seeds, packets, kinds } = await compareWithKernel(first, SEEDS);
    expect(seeds).toBe(SEEDS);
    expect(packets).toBeGreaterThan(5 * SEEDS);
    const names = Object.keys(kinds);
    for (const kind of ['plain/4/tcp', 'plain/4/udp', 'plain/6/tcp', 'plain/6/udp'])
      expect(names).toContain(kind);
    // Kernels before 6.17 take no tunnel superframes; the program says so.
    const tunnels = names.filter((name) => !name.startsWith('plain'));
    expect([0, 16]).toContain(tunnels.length);
  });

  test('disagrees when a single bit of ours is wrong', async () => {
    await expect(command(program, ['damaged', '1', '3'])).rejects.toThrow(
      /seed \d+ \(.*\): packet \d+: byte/,
    );
  });
});

describe.skipIf(lacks('tshark'))('tshark', { timeout: 180_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'penstock-oracle-'));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  const validate = ['ip', 'tcp', 'udp'].flatMap((name) => ['-o', `${name}.check_checksum:TRUE`]);

  /** One row a packet; a status is 0 bad, 1 good, 2 unverified, 3 absent, of each layer from the outside in. */
  async function judge(file: string, fields: readonly string[], options: readonly string[] = []) {
    const wanted = fields.flatMap((field) => ['-e', field]);
    const output = await command('tshark', ['-r', file, ...validate, ...options, '-T', 'fields', ...wanted]);
    return output
      .replace(/\n$/, '')
      .split('\n')
      .map((line) => line.split('\t').map((cell) => (cell === '' ? [] : cell.split(','))));
  }

  const STATUS = ['ip', 'tcp', 'udp'].map((name) => `${name}.checksum.status`);

  async function capture(
    mode: string,
    count: number,
    file: string,
  ): Promise<{ packets: number; frames?: number }> {
    return JSON.parse(await command(program, [mode, '0', `${count}`, file]));
  }

  test('counts what was sent and finds no bad checksum, in VXLAN, GENEVE, NVGRE and without', async () => {
    const file = join(directory, 'all.pcap');
    const { packets } = await capture('pcap', 200, file);
    const rows = await judge(file, [...STATUS, '_ws.malformed', 'frame.protocols']);
    expect(rows.length).toBe(packets);
    expect(rows.filter((row) => row.slice(0, 3).flat().includes('0'))).toEqual([]);
    // Random payload looks like this or that application; only what is below it is judged.
    const below = /(^|:)(eth|ethertype|vlan|ieee8021ad|ip|ipv6|ipv6\.dstopts|tcp|udp|vxlan|geneve|gre|data)$/;
    expect(rows.filter((row) => row[3]!.length > 0 && below.test(row[4]![0]!))).toEqual([]);
    for (const protocol of ['vxlan', 'geneve', 'gre']) {
      expect(
        rows.some((row) => row[4]![0]!.split(':').includes(protocol)),
        protocol,
      ).toBe(true);
    }
    // The innermost transport of every packet was really verified.
    expect(rows.filter((row) => ![...row[1]!, ...row[2]!].includes('1'))).toEqual([]);
  });

  test('reports a corruption of one bit', async () => {
    const file = join(directory, 'one.pcap');
    await capture('pcap', 20, file);
    const bytes = readFileSync(file);
    bytes[bytes.length - 1]! ^= 1; // payload of the last packet
    writeFileSync(file, bytes);
    const rows = await judge(file, STATUS);
    const bad = rows.filter((row) => row.flat().includes('0'));
    expect(bad).toEqual([rows.at(-1)]);
  });

  test('joins the segments of every STT frame again, and likes what is inside', async () => {
    const file = join(directory, 'stt.pcap');
    const { packets, frames } = await capture('stt', 80, file);
    const outside = await judge(file, STATUS);
    expect(outside.length).toBe(packets);
    expect(outside.filter(([ip, tcp]) => ip![0] !== '1' || tcp![0] !== '1')).toEqual([]);
    // Only with its STT dissector in front of TCP's does it look inside; that one has no valid opinion of the checksum.
    const first = ['-o', 'ip.try_heuristic_first:TRUE'];
    const inside = await judge(file, [...STATUS, 'stt.context_id', 'stt.segment.error'], first);
    const whole = inside.filter((row) => row[3]!.length > 0);
    expect(whole.length).toBe(frames);
    // Now and then it leaves a checksum unjudged (2); never is one bad.
    const judged = whole.filter((row) => [...row[1]!, ...row[2]!].includes('1'));
    expect(judged.length).toBeGreaterThan(0.9 * whole.length);
    expect(inside.filter((row) => row.slice(0, 3).flat().includes('0') || row[4]!.length > 0)).toEqual([]);
  });
});
