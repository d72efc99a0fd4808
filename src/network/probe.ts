// Asks the far ends of tunnels whether they are there, how far, and how large a packet their path takes: ICMP echo through the
// raw-socket package, with fragmentation forbidden.
//
//   small echo   answered: reachable, round-trip time
//   path MTU     the largest echo that is answered, by bisection between what IP guarantees and the underlay's MTU;
//                IP_PMTUDISC_PROBE sets DF and leaves the kernel's own notion of the path out of it (ip(7), ipv6(7))
//
// A path that swallows large packets without a word is found like one that says so. raw-socket is not safe in workers: one
// prober, on the main thread. Sockets are open while probes are under way only.
import raw, { type RawSocket } from 'raw-socket';
import { type Clock, systemClock } from '../telemetry/clock.js';
import { formatIp, parseIp } from './addresses.js';
import { NetworkError } from './errors.js';

export interface PeerProbe {
  readonly address: string;
  readonly reachable: boolean;
  /** Of the last echo that was answered. */
  readonly rttMs?: number;
  /** Bytes of the largest IP packet that the path takes whole, up to `mtuMax`. Absent when the peer is not reachable. */
  readonly pathMtu?: number;
  readonly sent: number;
  readonly answered: number;
}

export interface ProbeOptions {
  /** The underlay's MTU: what is tried at most. */
  readonly mtuMax?: number;
  /** How long an answer is waited for. */
  readonly timeoutMs?: number;
  /** How often an echo is sent before it counts as lost. */
  readonly tries?: number;
}

const FAMILY = {
  4: {
    ...{ protocol: raw.Protocol.ICMP, family: raw.AddressFamily.IPv4, request: 8, reply: 0 },
    ...{ header: 20, mtuMin: 576, level: 0, mtuDiscover: 10 },
  },
  6: {
    ...{ protocol: raw.Protocol.ICMPv6, family: raw.AddressFamily.IPv6, request: 128, reply: 129 },
    ...{ header: 40, mtuMin: 1280, level: 41, mtuDiscover: 23 },
  },
} as const;

const PMTUDISC_PROBE = 3;
const ICMP_HEADER = 8;
const PATIENCE_MS_MIN = 100;
const SEQUENCES = 0x1_0000;

interface Waiting {
  readonly address: string;
  readonly answered: () => void;
}

/** One ICMP socket and the echoes that wait for their answers. */
class EchoSocket {
  readonly #socket: RawSocket;
  readonly #waiting = new Map<number, Waiting>();
  readonly #identifier: number;
  #sequence = 0;

  constructor(
    private readonly version: 4 | 6,
    identifier: number,
  ) {
    const { protocol, family, level, mtuDiscover } = FAMILY[version];
    this.#identifier = identifier;
    try {
      this.#socket = raw.createSocket({ protocol, addressFamily: family, bufferSize: 65_536 });
      this.#socket.setOption(level, mtuDiscover, PMTUDISC_PROBE);
    } catch (error) {
      const reason = (error as Error).message;
      throw new NetworkError('KERNEL', `probing tunnel endpoints needs CAP_NET_RAW: ${reason}`, {
        cause: error,
      });
    }
    this.#socket.on('message', (buffer, source) => this.#receive(buffer, source));
    // Errors of the socket (an unreachable network) are answers that did not come.
    this.#socket.on('error', () => undefined);
  }

  /** Resolves true when `bytes` (the whole IP packet) went there and came back. */
  async echo(address: string, bytes: number, clock: Clock, timeoutMs: number): Promise<boolean> {
    const sequence = this.#sequence;
    this.#sequence = (sequence + 1) % SEQUENCES;
    const { header, request } = FAMILY[this.version];
    const packet = Buffer.alloc(bytes - header);
    packet[0] = request;
    packet.writeUInt16BE(this.#identifier, 4);
    packet.writeUInt16BE(sequence, 6);
    // The kernel sums ICMPv6 itself (RFC 3542, 3.1).
    if (this.version === 4) packet.writeUInt16BE(raw.createChecksum(packet), 2);
    const done = new AbortController();
    let answered = false;
    this.#waiting.set(sequence, {
      address,
      answered: () => {
        answered = true;
        done.abort();
      },
    });
    this.#socket.send(packet, 0, packet.length, address, (error) => {
      // EMSGSIZE: larger than the interface takes; ENETUNREACH and the like: no way there.
      if (error !== null) done.abort();
    });
    try {
      await clock.sleep(timeoutMs, done.signal);
      // A process that was held up reads what came meanwhile before it counts it as lost.
      await new Promise(setImmediate);
    } catch (error) {
      if (!done.signal.aborted) throw error;
    } finally {
      this.#waiting.delete(sequence);
    }
    return answered;
  }

  close(): void {
    this.#socket.close();
  }

  #receive(buffer: Buffer, source: string): void {
    // IPv4 comes with its header, IPv6 without.
    const icmp = this.version === 4 ? buffer.subarray((buffer[0]! & 15) * 4) : buffer;
    if (icmp.length < ICMP_HEADER || icmp[0] !== FAMILY[this.version].reply) return;
    if (icmp.readUInt16BE(4) !== this.#identifier) return;
    const waiting = this.#waiting.get(icmp.readUInt16BE(6));
    if (waiting?.address === source) waiting.answered();
  }
}

let probers = 0;

/** The address as answers name it: one may be written in many ways. */
function parsed(address: string): { readonly version: 4 | 6; readonly peer: string } {
  const ip = parseIp(address);
  if (ip !== undefined) return { version: ip.version, peer: formatIp(ip) };
  throw new NetworkError('CONFIG', `${JSON.stringify(address)} is no IP address`);
}

export class Prober implements Disposable {
  readonly #sockets = new Map<4 | 6, EchoSocket>();
  readonly #identifier = (process.pid + ++probers * 0x1001) & 0xffff;

  constructor(private readonly clock: Clock = systemClock) {}

  /** One small echo: its round-trip time in milliseconds, undefined when no answer came in time. Throws as `probe` does. */
  async echo(address: string, timeoutMs: number): Promise<number | undefined> {
    const { version, peer } = parsed(address);
    const startedMs = this.clock.monotonicMs();
    const bytes = FAMILY[version].header + ICMP_HEADER;
    const answered = await this.#socket(version).echo(peer, bytes, this.clock, timeoutMs);
    return answered ? this.clock.monotonicMs() - startedMs : undefined;
  }

  /** Throws NetworkError: CONFIG for what is no address, KERNEL without CAP_NET_RAW. */
  async probe(address: string, options: ProbeOptions = {}): Promise<PeerProbe> {
    const { mtuMax = 1500, timeoutMs = 1000, tries = 2 } = options;
    const { version, peer } = parsed(address);
    const socket = this.#socket(version);
    const { header, mtuMin } = FAMILY[version];
    let sent = 0;
    let answered = 0;
    let rttMs: number | undefined;
    let patienceMs = timeoutMs;
    const echo = async (bytes: number): Promise<boolean> => {
      for (let attempt = 0; attempt < tries; attempt += 1) {
        const startedMs = this.clock.monotonicMs();
        sent += 1;
        if (!(await socket.echo(peer, bytes, this.clock, patienceMs))) continue;
        answered += 1;
        if (bytes === small) rttMs = this.clock.monotonicMs() - startedMs;
        return true;
      }
      return false;
    };
    const small = header + ICMP_HEADER;
    const reachable = await echo(small);
    if (!reachable) return { address, reachable, sent, answered };
    // Who answers in a millisecond is not waited for a second.
    patienceMs = Math.min(timeoutMs, Math.max(PATIENCE_MS_MIN, 10 * rttMs!));
    // Most paths take what the underlay takes: that is asked first.
    let good = mtuMin;
    let bad = mtuMax + 1;
    if (mtuMax <= mtuMin || (await echo(mtuMax))) good = mtuMax;
    else bad = mtuMax;
    while (good + 1 < bad) {
      const middle = (good + bad) >> 1;
      if (await echo(middle)) good = middle;
      else bad = middle;
    }
    return { address, reachable, rttMs: rttMs!, pathMtu: good, sent, answered };
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets.values()) socket.close();
    this.#sockets.clear();
  }

  #socket(version: 4 | 6): EchoSocket {
    const open = this.#sockets.get(version) ?? new EchoSocket(version, this.#identifier);
    this.#sockets.set(version, open);
    return open;
  }
}
