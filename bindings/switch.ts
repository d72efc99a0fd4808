// What bindings/switch_wrap.cc exports. One of the calls that answer a promise at a time; errors carry `code` (an errno's name).
import type { IpAddress, Prefix } from '../src/network/addresses.js';
import { loadAddon } from './load.js';

export interface NativeRate {
  readonly bitsPerSecond: number;
  readonly burstBytes: number;
}

export interface NativePort {
  readonly id: number;
  readonly name: string;
  readonly underlay: boolean;
  /** `vlan` 0xffff: untagged. */
  readonly attachments: ReadonlyArray<{ readonly network: number; readonly vlan: number }>;
  /** Undefined: where the port's kernel side does not. */
  readonly coalesce: boolean | undefined;
  readonly antiSpoof: boolean;
  readonly mac: bigint | undefined;
  readonly addresses: readonly Prefix[];
  readonly receive: NativeRate | undefined;
  readonly transmit: NativeRate | undefined;
  readonly groups: readonly number[];
  readonly isolated: boolean;
  readonly offload: boolean;
}

export interface NativeNetwork {
  readonly index: number;
  readonly name: string;
  readonly tunnel: 'none' | 'vxlan' | 'geneve' | 'nvgre';
  readonly vni: number;
  readonly underlay: number | undefined;
  readonly local: IpAddress | undefined;
  readonly peers: readonly IpAddress[];
  /** Peers until a moment ago: their unicast still comes in, nothing goes there. */
  readonly leaving: readonly IpAddress[];
  readonly learnPeers: boolean;
  readonly outerChecksum: boolean;
  readonly tracking: boolean;
  readonly floodUnknown: boolean;
  readonly vlanTransparent: boolean;
  readonly responders: ReadonlyArray<{ readonly address: IpAddress; readonly mac: bigint }>;
}

export interface NativeSwitchConfig {
  /** Decided flows are taken over by programs in the kernel. */
  readonly offload: boolean;
  readonly ports: readonly NativePort[];
  readonly networks: readonly NativeNetwork[];
  /** Records of native/switch/rule_record.h. */
  readonly rules: Uint8Array;
  readonly groups: ReadonlyArray<{ readonly name: string; readonly rules: Uint8Array }>;
  readonly meters: ReadonlyArray<{ readonly id: bigint } & NativeRate>;
  readonly mirrors: ReadonlyArray<{
    readonly from: number | undefined;
    readonly to: number;
    readonly received: boolean;
    readonly transmitted: boolean;
  }>;
}

export interface Traffic {
  readonly packets: number;
  readonly bytes: number;
}

export interface TraceStep {
  readonly what: string;
  readonly detail: string;
}

export interface NativeTrace {
  readonly steps: readonly TraceStep[];
  readonly outputs: ReadonlyArray<{ readonly port: number; readonly frame: Uint8Array }>;
  readonly dropped?: string;
}

export type PortState = 'up' | 'blocked' | 'forward-to-peer' | 'down';

export interface NativePortFacts {
  readonly name: string;
  readonly state: PortState;
  readonly mtu: number;
  readonly queues: number;
  /** What its kernel side does for us. */
  readonly offloads: readonly string[];
  readonly received: Traffic;
  readonly transmitted: Traffic;
  /** By reason; reasons that never happened are absent. */
  readonly drops: Readonly<Record<string, number>>;
  /** Dropped by the kernel because we did not read in time. */
  readonly lost: number;
  /** How often its kernel side took nothing more: packets then wait, 256 KiB a queue, and beyond that are dropped (tx-full). */
  readonly blocked: number;
  /** What waits at this moment. */
  readonly heldBytes: number;
  /** Segments that became superframes before the switch saw them. */
  readonly coalesced: {
    readonly on: boolean;
    /** Packets that were taken into another. */
    readonly merged: number;
    /** Superframes that were made of them. */
    readonly flushed: number;
    /** Packets that were left alone for a wrong checksum. */
    readonly badChecksum: number;
  };
  /** Of the flows that the kernel forwards; absent where it forwards none. Contained in `received` and `transmitted`. */
  readonly offloaded?: {
    /** That come in by this port, now. */
    readonly flows: number;
    readonly received: Traffic;
    readonly transmitted: Traffic;
    /** Why none of this port can be taken over. */
    readonly finding?: string;
  };
  readonly underlay?: 'tap' | 'udp';
  readonly finding?: string;
}

export interface OffloadFacts {
  readonly state: 'on' | 'off' | 'unavailable';
  /** Why it is not available here. */
  readonly finding?: string;
}

export interface IdleExplanation {
  readonly mode: 'adaptive' | 'spin' | 'block' | 'nap';
  /** Two or three sentences. */
  readonly text: string;
  readonly windowNs: number;
  readonly predictedGapNs?: number;
  readonly wakeCostNs: number;
  readonly tokensNs: number;
  readonly spunNs: number;
  readonly sleptNs: number;
  readonly sleepsWithWorkUpstream: number;
  readonly stays: Readonly<Record<string, number>>;
  readonly sleeps: Readonly<Record<string, number>>;
  readonly wakes: Readonly<Record<string, number>>;
}

export interface WorkerFacts {
  readonly asleep: boolean;
  readonly stalled: boolean;
  readonly rounds: number;
  readonly cpuNs: number;
  readonly waiting: number;
  readonly stalls: number;
  readonly idle: IdleExplanation;
}

export interface NativeAddress {
  readonly network: number;
  readonly mac: string;
  readonly port?: number;
  readonly peer?: number;
  readonly ageSeconds: number;
  readonly static: boolean;
}

export interface NativeConnection {
  readonly flow: string;
  readonly translated?: string;
  readonly network: number;
  readonly answered: boolean;
  readonly expiresSeconds: number;
  readonly sent: Traffic;
  readonly answers: Traffic;
}

export interface NativePortRestored {
  /** Connections that went into the table. */
  readonly connections: number;
  /** That were there already and have gone on since. */
  readonly kept: number;
  /** That found no room. */
  readonly withoutRoom: number;
  /** Behind the port from now on; the tag of the port where it has one. */
  readonly addresses: ReadonlyArray<{ readonly mac: bigint; readonly vlan?: number }>;
}

export interface PlaneSettings {
  /** 0 or absent: by the number of processors. */
  readonly workers?: number;
  readonly idle?: IdleExplanation['mode'];
  /** Of one processor, that waiting for packets may take; 0.1 by default. */
  readonly spinShare?: number;
  /** Packet buffers and 64 KiB bodies of each worker. */
  readonly packets?: number;
  readonly bodies?: number;
  readonly connections?: number;
  readonly ageSeconds?: number;
  readonly offloadedFlows?: number;
  readonly offloadIdleSeconds?: number;
  /** Journals of interfaces that were taken over by processes that are gone are looked for here. */
  readonly runtimeDirectory?: string;
  readonly seed: bigint;
}

export interface LinkOptions {
  readonly name: string;
  readonly namespace?: string | undefined;
  readonly queues?: number | undefined;
}

/** What native/switch/capture.h calls CaptureOptions. */
export interface NativeCapture {
  readonly ringBytes: number;
  readonly snaplen: number;
  readonly everyPort: boolean;
  readonly ports: readonly number[];
  readonly drops: boolean;
  /** Records of groups (native/switch/rule_record.h), without their direction. */
  readonly matches: Uint8Array;
}

export interface DataPlane {
  attachTap(
    options: LinkOptions & { readonly mtu?: number | undefined; readonly mac?: bigint | undefined },
  ): Promise<number>;
  attachInterface(options: LinkOptions & { readonly runtimeDirectory?: string | undefined }): Promise<number>;
  attachUnderlay(
    options: LinkOptions & {
      readonly addresses: readonly IpAddress[];
      readonly ports: readonly number[];
      /** Whether NVGRE is taken and sent, too. */
      readonly nvgre: boolean;
      readonly mtu?: number | undefined;
      readonly kind?: 'tap' | 'udp' | undefined;
    },
  ): Promise<number>;
  /** `handle`: of a RingPort (bindings/ring.ts). */
  attachRing(handle: unknown): Promise<number>;
  detach(port: number): Promise<void>;
  apply(config: NativeSwitchConfig): Promise<void>;
  setPortState(port: number, state: 'up' | 'blocked'): Promise<void>;
  /** What is for the port's stations goes to that peer from now on. EINVAL: a network of the port does not reach it. */
  forwardPort(port: number, peer: IpAddress): Promise<void>;
  /** native/switch/port_image.h */
  exportPort(port: number): Promise<Uint8Array>;
  /** EINVAL: no such image, or damaged; EPROTO: of another version; EXDEV: of a port of other networks or groups; EFBIG. */
  importPort(port: number, image: Uint8Array): Promise<NativePortRestored>;
  /** Puts a frame of 14 to 1514 bytes in as if the port had received it. False: no such port, or 65 536 wait already. */
  announce(port: number, frame: Uint8Array): boolean;
  tick(): Promise<void>;
  trace(port: number, frame: Uint8Array): NativeTrace;
  port(port: number): NativePortFacts | undefined;
  /** id, packets, bytes of every native rule, one after the other. */
  rules(): BigUint64Array;
  workers(): WorkerFacts[];
  counters(): Record<string, number>;
  addresses(): NativeAddress[];
  connections(max: number): NativeConnection[];
  peers(): Array<{ readonly address: string; readonly received: number; readonly transmitted: number }>;
  /** What a probe found of the way to a peer (an index of `peers`); 0 takes it back. */
  setPathMtu(peer: number, bytes: number): void;
  /** `memory` as bindings/capture.ts lays it out, of this many bytes; answers a number for the two calls below. */
  beginCapture(memory: Uint8Array, options: NativeCapture, wake: () => void): Promise<number>;
  /** Once it is settled nobody writes to the memory any more; answers the packets that found the ring full, by port. */
  endCapture(capture: number): Promise<readonly number[]>;
  offload(): OffloadFacts;
  stop(): Promise<void>;
}

interface Exports {
  readonly DataPlane: { start(settings: PlaneSettings): Promise<DataPlane> };
}

export function startDataPlane(settings: PlaneSettings): Promise<DataPlane> {
  return loadAddon<Exports>().DataPlane.start(settings);
}
