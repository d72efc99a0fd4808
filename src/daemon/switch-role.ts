// The role of the packet plane: one switch, its counters among the daemon's metrics.
import type { AgentApi } from '../lease/contract.js';
import type { Capture, CaptureOptions } from '../network/capture.js';
import type { SwitchConfigInput } from '../network/config.js';
import { NetworkError } from '../network/errors.js';
import { buildFrame, type PacketDescription } from '../network/packet-description.js';
import {
  type PortImport,
  type SettablePortState,
  Switch,
  type SwitchStats,
  type SwitchView,
  type TraceResult,
} from '../network/switch.js';
import { type Clock, pause } from '../telemetry/clock.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { type CaptureItem, type CaptureReport, packetToItem, summaryToReport } from './capture-items.js';
import type { SwitchRoleConfig } from './config.js';
import type { GatewayOfferView } from './gateway-offer.js';
import type { LeasedGatewayView } from './leased-gateway.js';
import { LeasedGateways } from './leased-gateways.js';
import { IMAGE_PIECE_BYTES } from './port-image.js';
import type { Role } from './role.js';

const PROBE_INTERVAL_MS = 30_000;

export interface ImagePiece {
  readonly offset: number;
  /** Of the whole image, at most IMAGE_BYTES_MAX. */
  readonly total: number;
  /** base64 */
  readonly piece: string;
}

export interface SwitchRoleDependencies {
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly clock: Clock;
  /** Asked for gateways where the configuration names no agent: the daemon's own, or where this host's listens. */
  readonly agent: AgentApi | string;
}

/** What there is to see, and whom its networks have leased. */
export interface SwitchRoleView extends SwitchView {
  readonly gateways: readonly LeasedGatewayView[];
  readonly offers: readonly GatewayOfferView[];
}

export interface SwitchRoleStatus {
  readonly ports: number;
  readonly networks: number;
  readonly rules: number;
  readonly connections: number;
  readonly workers: number;
}

/** A trace without bytes that JSON cannot carry: frames in hexadecimal. */
export type TraceReport = Omit<TraceResult, 'outputs'> & {
  readonly outputs: ReadonlyArray<{ readonly port: string; readonly frame: string }>;
};

export class SwitchRole implements Role {
  readonly kind = 'switch';
  readonly name = 'switch';
  readonly ended: Promise<void>;
  #resolveEnded!: () => void;
  #stopping: Promise<void> | undefined;
  readonly #captures = new Map<number, Capture>();
  #nextCapture = 1;
  /** Images of ports that are on their way here. */
  readonly #images = new Map<string, readonly Buffer[]>();
  readonly #forget: Array<() => void> = [];
  readonly #stop = new AbortController();
  readonly #gateways: LeasedGateways;
  #probing: Promise<void> = Promise.resolve();
  /** Ends the pause between two rounds of probes. */
  #probeSoon = new AbortController();

  private constructor(
    private readonly plane: Switch,
    private readonly logger: Logger,
    private readonly metrics: Metrics,
    private readonly clock: Clock,
    agent: AgentApi | string,
  ) {
    const onMove = () => this.#probeSoon.abort();
    this.#gateways = new LeasedGateways(plane, { agent, onMove, clock, logger });
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  static async start(
    { options, document }: SwitchRoleConfig,
    { logger, metrics, clock, agent }: SwitchRoleDependencies,
  ): Promise<SwitchRole> {
    const plane = await Switch.start(options);
    const role = new SwitchRole(plane, logger.child({ role: 'switch' }), metrics, clock, agent);
    try {
      await role.apply(document);
    } catch (error) {
      await role.stop();
      throw error;
    }
    role.#probing = role.#probeNowAndThen();
    return role;
  }

  async apply(document: SwitchConfigInput): Promise<void> {
    await this.plane.apply(document);
    await this.#gateways.follow();
    for (const forget of this.#forget.splice(0)) forget();
    this.#forget.push(this.metrics.registerSource('switch', () => this.plane.counters()));
    for (const name of Object.keys(this.plane.config.ports))
      this.#forget.push(
        this.metrics.registerSource('switchPort', () => portCounters(this.plane.port(name)), { port: name }),
      );
    for (const { network } of this.#gateways.gateways())
      this.#forget.push(
        this.metrics.registerSource('switchGateway', () => this.#gateways.counters(network), { network }),
      );
    const { ports, networks, rules } = await this.status();
    this.logger.info({ ports, networks, rules }, 'the configuration of the switch is in force');
  }

  /** Peers come and go; what is told of one is a change. */
  async #probeNowAndThen(): Promise<void> {
    const reached = new Map<string, boolean>();
    let failure = '';
    while (!this.#stop.signal.aborted) {
      this.#probeSoon = new AbortController();
      const soon = AbortSignal.any([this.#stop.signal, this.#probeSoon.signal]);
      try {
        for (const { address, reachable, rttMs, pathMtu } of await this.plane.probe()) {
          if (reached.get(address) === reachable) continue;
          reached.set(address, reachable);
          if (reachable) this.logger.info({ address, rttMs, pathMtu }, 'the peer answers');
          else this.logger.warn({ address }, 'the peer does not answer');
        }
        failure = '';
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        const { message } = error as Error;
        if (message !== failure)
          this.logger.warn({ error }, 'tunnel endpoints cannot be probed; it is tried again');
        failure = message;
      }
      await pause(this.clock, PROBE_INTERVAL_MS, soon);
    }
  }

  async status(): Promise<SwitchRoleStatus> {
    const { ports, networks, rules } = this.plane.config;
    const counters = this.plane.counters();
    return {
      ports: Object.keys(ports).length,
      networks: Object.keys(networks).length,
      rules: rules.length,
      connections: counters.connections ?? 0,
      workers: this.plane.explainIdle().length,
    };
  }

  stats(): SwitchStats {
    return this.plane.stats();
  }

  show(connections: number): SwitchRoleView {
    const gateways = this.#gateways.gateways();
    return { ...this.plane.show(connections), gateways, offers: this.#gateways.offers() };
  }

  async setPortState(port: string, state: SettablePortState, peer?: string): Promise<void> {
    await this.plane.setPortState(port, state, { peer });
    this.logger.info({ port, state, peer }, 'the state of a port was set');
  }

  /** Gives the image of a port in pieces of base64; answers how many bytes it has. */
  async exportPort(
    port: string,
    sendItems: (items: readonly string[]) => Promise<void>,
  ): Promise<{ readonly bytes: number }> {
    const image = Buffer.from(await this.plane.exportPort(port));
    for (let at = 0; at < image.length; at += IMAGE_PIECE_BYTES)
      await sendItems([image.toString('base64', at, at + IMAGE_PIECE_BYTES)]);
    this.logger.info({ port, bytes: image.length }, 'the state of a port was exported');
    return { bytes: image.length };
  }

  /**
   * Takes an image piece by piece, from its beginning (`offset` 0, which forgets a transfer that was left off) to its end
   * (`total`), and imports it when it is whole; undefined before.
   */
  async importPort(port: string, { offset, total, piece }: ImagePiece): Promise<PortImport | undefined> {
    const earlier = offset === 0 ? [] : (this.#images.get(port) ?? []);
    this.#images.delete(port);
    const pieces = [...earlier, Buffer.from(piece, 'base64')];
    const sizes = pieces.map(({ length }) => length);
    const bytes = sizes.reduce((sum, length) => sum + length, 0);
    if (bytes - sizes.at(-1)! !== offset || bytes > total)
      throw new NetworkError('IMAGE', `import port ${port}: pieces of the image are missing; send it again`);
    if (bytes < total) {
      this.#images.set(port, pieces);
      return undefined;
    }
    const restored = await this.plane.importPort(port, Buffer.concat(pieces));
    this.logger.info({ port, ...restored }, 'the state of a port was imported');
    return restored;
  }

  trace(port: string, packet: PacketDescription | { readonly frame: string }): TraceReport {
    const frame = 'frame' in packet ? Buffer.from(packet.frame, 'hex') : buildFrame(packet);
    const { outputs, ...rest } = this.plane.trace(port, frame);
    return {
      ...rest,
      outputs: outputs.map((output) => ({
        port: output.port,
        frame: Buffer.from(output.frame).toString('hex'),
      })),
    };
  }

  /** Gives its number, then packets to `sendItems` until the capture ends, `endCapture` is called with its number, or `signal` is aborted. */
  async capture(
    options: CaptureOptions,
    sendItems: (items: readonly CaptureItem[]) => Promise<void>,
    signal: AbortSignal,
  ): Promise<CaptureReport> {
    await using capture = this.plane.capture(options);
    const number = this.#nextCapture++;
    this.#captures.set(number, capture);
    const abort = () => void capture.stop().catch(() => undefined); // disposing of it tells
    signal.addEventListener('abort', abort);
    try {
      await capture.started();
      await sendItems([{ capture: number }]);
      for await (const packets of capture.batches()) await sendItems(packets.map(packetToItem));
      return summaryToReport(await capture.stop());
    } finally {
      signal.removeEventListener('abort', abort);
      this.#captures.delete(number);
    }
  }

  async endCapture(capture: number): Promise<void> {
    await this.#captures.get(capture)?.stop();
  }

  stop(): Promise<void> {
    this.#stopping ??= (async () => {
      for (const forget of this.#forget.splice(0)) forget();
      this.#stop.abort();
      await this.#probing;
      try {
        await this.#gateways[Symbol.asyncDispose]();
      } finally {
        await this.plane.stop().finally(() => this.#resolveEnded());
      }
    })();
    return this.#stopping;
  }
}

function portCounters(port: SwitchStats['ports'][string] | undefined): Record<string, number> {
  if (port === undefined) return {};
  const drops = Object.values(port.drops).reduce((sum, count) => sum + count, 0);
  return {
    receivedPackets: port.received.packets,
    receivedBytes: port.received.bytes,
    transmittedPackets: port.transmitted.packets,
    transmittedBytes: port.transmitted.bytes,
    drops,
    lost: port.lost,
  };
}
