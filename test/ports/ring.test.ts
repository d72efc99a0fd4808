// A script as a port: it reads packets in place and answers, sends frames of its own, and may be slow, blocked or broken
// without the plane noticing more than a full ring.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { PacketRing, RING, ringLayout, Verdict } from '../../bindings/ring.js';

async function exercised(ring: PacketRing, packets: number, flows = 256, frameBytes = 64): Promise<void> {
  ring.port.exercise(packets, flows, frameBytes);
  await expect.poll(() => ring.port.exercised().done, { timeout: 20_000, interval: 5 }).toBe(true);
}

test('the layout here is the layout there', () => {
  const camel = (name: string) => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
  const sections = {
    RingRecord: RING.record,
    FlowKey: RING.key,
    RingFrame: RING.frame,
    RingControl: RING.control,
  };
  let compared = 0;
  for (const [name, value] of Object.entries(ringLayout)) {
    const [, type, field] = /^(?:sizeof )?(\w+)(?:\.(\w+))?$/.exec(name)!;
    const section = sections[type as keyof typeof sections] as Record<string, number> | undefined;
    if (section === undefined) continue;
    expect(section[camel(field ?? 'size')], name).toBe(value);
    ++compared;
  }
  expect(compared).toBe(
    Object.values(sections).reduce((sum, section) => sum + Object.keys(section).length, 0),
  );
  expect([RING.data, RING.packet, RING.skip]).toEqual([
    ringLayout.kRingDataOffset,
    ringLayout.kRingPacket,
    ringLayout.kRingSkip,
  ]);
});

test('every packet is seen once, with its five-tuple, and goes the way of its verdict', async () => {
  const seen = new Uint32Array(256);
  let wrong = 0;
  const ring = new PacketRing((packet) => {
    const flow = packet.sourceIpv4 - 0x0a000000;
    seen[flow]!++;
    const right =
      packet.sourcePort === 1024 + flow &&
      packet.destinationPort === 53 &&
      packet.destinationIpv4 === 0x0a010001 &&
      packet.protocol === 17 &&
      packet.ipVersion === 4 &&
      packet.etherType === 0x0800 &&
      packet.length === 200 &&
      packet.bytes.length === 128 &&
      packet.bytes[23] === 17 &&
      !packet.superframe;
    if (!right) wrong++;
    return flow % 4 === 0 ? Verdict.drop : Verdict.accept;
  });
  await exercised(ring, 100_000, 256, 200);
  expect(wrong).toBe(0);
  expect(Math.min(...seen)).toBeGreaterThanOrEqual(390);
  expect(seen.reduce((sum, count) => sum + count)).toBe(100_000);
  const dropped = seen.filter((_, flow) => flow % 4 === 0).reduce((sum, count) => sum + count);
  expect(ring.stats()).toEqual({ toScript: 100_000, fromScript: 100_000 - dropped, 'drop script': dropped });
  ring.close();
});

test('frames that a script sends arrive unharmed, whatever their size', async () => {
  const ring = new PacketRing(() => Verdict.accept, { framesBytes: 1 << 17 });
  ring.port.exercise(0, 1, 64);
  let sum = 0;
  let sent = 0;
  for (let i = 0; sent < 3000; ++i) {
    const frame = new Uint8Array(14 + ((i * 7919) % 1700)).map((_, at) => (at * 31 + i) & 0xff);
    if (!ring.send(frame)) {
      await sleep(1);
      continue;
    }
    ++sent;
    sum += frame.reduce((total, byte) => total + byte, 0);
  }
  await expect.poll(() => ring.stats().fromScript).toBe(3000);
  await expect.poll(() => ring.port.exercised().checksum).toBe(sum);
  expect(ring.send(new Uint8Array(200_000))).toBe(false);
  expect(ring.send(new Uint8Array(13))).toBe(true);
  await expect.poll(() => ring.stats()['drop malformed']).toBe(1);
  ring.close();
});

test('a blocked script fills the ring, no more, and catches up', async () => {
  let handled = 0;
  const ring = new PacketRing(
    () => {
      handled++;
      return Verdict.accept;
    },
    { recordsBytes: 1 << 16 },
  );
  ring.port.exercise(1_000_000, 16, 64);
  const isFull = () => ring.stats()['drop ring-full']! > 1000;
  for (const endMs = performance.now() + 30_000; !isFull() && performance.now() < endMs; )
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
  expect(isFull()).toBe(true);
  const { toScript } = ring.stats();
  // 64 KiB of records of 144 bytes.
  expect(toScript).toBeLessThanOrEqual(456);
  await expect.poll(() => handled).toBeGreaterThan(toScript!);
  ring.close();
});

test('a handler that throws is told once; the plane goes on', async () => {
  const ring = new PacketRing(() => {
    throw new Error('a bug of the script');
  });
  const warnings: string[] = [];
  const listen = (warning: Error) => warnings.push(warning.message);
  process.on('warning', listen);
  await exercised(ring, 5000);
  process.off('warning', listen);
  expect(String(ring.failure)).toContain('a bug of the script');
  expect(ring.stats().fromScript).toBe(5000);
  expect(warnings.filter((text) => text.includes('a bug of the script'))).toHaveLength(1);
  ring.close();
});

test('observing only: nothing waits for the script', async () => {
  let seen = 0;
  const ring = new PacketRing(
    () => {
      seen++;
      return undefined;
    },
    { verdicts: false, snap: 64 },
  );
  ring.port.exercise(1000, 16, 64);
  await expect.poll(() => seen).toBe(1000);
  expect(ring.stats()).toEqual({ toScript: 1000, fromScript: 0 });
  ring.close();
  ring.close();
});

test('closed with packets waiting, or sizes that do not fit', () => {
  const ring = new PacketRing(() => Verdict.accept);
  ring.port.exercise(3000, 16, 64);
  ring.close();
  expect(ring.stats()).toEqual({});
  expect(() => new PacketRing(() => Verdict.accept, { recordsBytes: 100_000 })).toThrow(/powers of two/);
  expect(() => new PacketRing(() => Verdict.accept, { snap: 1 << 20 })).toThrow(/powers of two/);
});
