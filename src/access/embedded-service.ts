// The whole service side of an embedded store in one process: metadata on one engine, one storage node, an access node in
// front of both. Scaling out replaces what is opened here; a gateway cannot tell.
//
//   DIR/penstock.json   format version and identity of the store
//   DIR/metadata/       the key-value engine
//   DIR/data/           the storage node's extents and journal
//
// Order of closing is the reverse of opening: sessions end before metadata, metadata before its engine.
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { open, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { PageEndpoint } from '../../bindings/extent.js';
import type { KvEngine } from '../kv/engine.js';
import { openEngine } from '../kv/open.js';
import { MetadataError } from '../metadata/contract.js';
import { LockService } from '../metadata/locks.js';
import { knownStripes } from '../metadata/published.js';
import { MetadataService } from '../metadata/service.js';
import { SessionStore } from '../metadata/sessions.js';
import { formatStore } from '../metadata/store.js';
import type { Volume as MetadataVolume } from '../metadata/volume.js';
import type { ScrubReport, StorageNode, StorageStatistics } from '../storage/contract.js';
import { LoadedStorageNode, type LocalStorageNode } from '../storage/local-storage-node.js';
import { type StripePlace, stripePlaceAt } from '../storage/stripe-policy.js';
import type { Clock } from '../telemetry/clock.js';
import { Phases } from '../telemetry/phases.js';
import { LocalAccessNode } from './access-node.js';
import type { Volume } from './authority.js';
import { type CollectOptions, collect } from './collect.js';
import { type ContentEntry, contentManifest } from './content-manifest.js';
import type { Credential, Session } from './contract.js';
import { TokenTable } from './tokens.js';

/**
 * Raised whenever an older build would misread the store. Older stores are raised to it when they are opened.
 *
 *   2  the engine's newest commits may be in its journal alone, which builds of format 1 would not look into
 */
export const STORE_FORMAT = 2;
const IDENTITY_FILE = 'penstock.json';
/** The identity while the rest of the store is being made: whatever stands beside it is ours to throw away. */
const MAKING_FILE = 'penstock.json.making';
const STORAGE_NODE_ID = 1;
/** What fsck names one by one; the rest it counts. */
const PROBLEMS_MAX = 20_000;

interface StoreIdentity {
  readonly format: number;
  readonly id: string;
}

export interface VolumeQuota {
  readonly bytesQuota?: number;
  readonly inodesQuota?: number;
}

/**
 * Makes the store and a volume in it, whose root belongs to whoever runs this process; false when `ifAbsent` and the volume exists. EEXIST otherwise.
 */
export async function formatEmbedded(
  directory: string,
  volume: string,
  quota: VolumeQuota,
  ifAbsent: boolean,
): Promise<boolean> {
  if (!existsSync(join(directory, IDENTITY_FILE))) await makeStore(directory);
  const { engine } = await openMetadata(directory);
  try {
    const metadata = await MetadataService.open([engine]);
    try {
      const owner = { rootUid: process.geteuid?.() ?? 0, rootGid: process.getegid?.() ?? 0 };
      await metadata.createVolume(volume, { ...quota, ...owner });
      return true;
    } catch (error) {
      if (ifAbsent && (error as { code?: string }).code === 'EEXIST') return false;
      throw error;
    } finally {
      await metadata[Symbol.asyncDispose]();
    }
  } finally {
    await engine[Symbol.asyncDispose]();
  }
}

const metadataUrl = (directory: string): string => `file:${join(directory, 'metadata')}`;

/**
 * The identity gets its name last: until then the directory holds no store, and making it starts anew. ENOTEMPTY when something
 * stands in its place that nobody was making.
 */
async function makeStore(directory: string): Promise<void> {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const parts = ['metadata', 'data'].map((part) => join(directory, part));
  const making = join(directory, MAKING_FILE);
  if (!existsSync(making)) for (const part of parts) requireVacant(part);
  await writeDurably(making, identityText(randomUUID()));
  await syncDirectory(directory);
  for (const part of parts) {
    await rm(part, { recursive: true, force: true });
    mkdirSync(part, { mode: 0o700 });
  }
  const engine = await openEngine(metadataUrl(directory));
  await formatStore([engine]);
  await engine[Symbol.asyncDispose]();
  await rename(making, join(directory, IDENTITY_FILE));
  await syncDirectory(directory);
}

function requireVacant(part: string): void {
  try {
    if (readdirSync(part).length === 0) return;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return;
    if (code !== 'ENOTDIR') throw error;
  }
  throw new MetadataError(
    'ENOTEMPTY',
    `${part} is there, but no ${IDENTITY_FILE} beside it: restore that file if this was a store, else choose another directory`,
  );
}

/** The engine is open, hence locked, before the identity changes, and nothing is committed to it before that is durable. */
async function openMetadata(directory: string): Promise<{ engine: KvEngine; id: string }> {
  const { format, id } = readIdentity(directory);
  const engine = await openEngine(metadataUrl(directory));
  try {
    if (format < STORE_FORMAT) await writeIdentity(directory, id);
    return { engine, id };
  } catch (error) {
    await engine[Symbol.asyncDispose]();
    throw error;
  }
}

async function writeIdentity(directory: string, id: string): Promise<void> {
  const path = join(directory, IDENTITY_FILE);
  await writeDurably(`${path}.new`, identityText(id));
  await rename(`${path}.new`, path);
  await syncDirectory(directory);
}

function identityText(id: string): string {
  const identity: StoreIdentity = { format: STORE_FORMAT, id };
  return `${JSON.stringify(identity)}\n`;
}

const writeDurably = (path: string, text: string): Promise<void> => writeFile(path, text, { flush: true });

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  await handle.sync();
  await handle.close();
}

function readIdentity(directory: string): StoreIdentity {
  const path = join(directory, IDENTITY_FILE);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    throw new MetadataError(
      'ENOENT',
      `${directory} holds no store; make one with "penstock format file:${directory} --name VOLUME"`,
    );
  }
  let identity: StoreIdentity;
  try {
    identity = JSON.parse(text) as StoreIdentity;
  } catch {
    throw damagedIdentity(path);
  }
  if (!Number.isSafeInteger(identity?.format) || typeof identity.id !== 'string') throw damagedIdentity(path);
  if (identity.format > STORE_FORMAT) {
    throw new MetadataError(
      'EPROTONOSUPPORT',
      `the store in ${directory} has format ${identity.format}, this penstock knows ${STORE_FORMAT}; use a newer penstock`,
    );
  }
  return identity;
}

function damagedIdentity(path: string): MetadataError {
  return new MetadataError('EIO', `${path} is damaged: it must be one line of JSON with "format" and "id"`);
}

export interface EmbeddedOptions {
  readonly clock: Clock;
  /**
   * The client's cache: where staged pages come from and fetched ones go. While it opens, the storage node reads what it has;
   * nothing in the store changes before it is open, or when it cannot be opened.
   */
  readonly pages: PageEndpoint | Promise<PageEndpoint>;
  /** Told what the storage node, the engine and the sessions took to open. */
  readonly phases?: Phases;
}

export interface EmbeddedFsckReport {
  readonly inodesChecked: number;
  readonly stripesChecked: number;
  readonly problems: ReadonlyArray<{ readonly message: string }>;
}

interface OpenVolume {
  readonly metadata: MetadataVolume;
  readonly locks: LockService;
}

export class EmbeddedService implements AsyncDisposable {
  readonly #volumes = new Map<string, Promise<OpenVolume>>();
  readonly #access: LocalAccessNode;

  private constructor(
    readonly directory: string,
    /** The identity of the store; a cache directory belongs to one store. */
    readonly storeId: string,
    private readonly engine: KvEngine,
    private readonly metadata: MetadataService,
    private readonly sessions: SessionStore,
    private readonly node: LocalStorageNode,
    clock: Clock,
  ) {
    this.#access = new LocalAccessNode({
      sessions,
      volumes: { find: (name) => this.#find(name) },
      tokens: new TokenTable(engine),
      clock,
    });
  }

  /** The store's identity, without opening it. ENOENT: there is no store; EPROTONOSUPPORT: a newer one. */
  static identity(directory: string): string {
    return readIdentity(directory).id;
  }

  /** ENOENT when the store has no such volume; said before a cache is made for it. */
  static async requireVolume(directory: string, volume: string): Promise<void> {
    const { engine } = await openMetadata(directory);
    try {
      const metadata = await MetadataService.open([engine]);
      const volumes = await metadata.volumes();
      await metadata[Symbol.asyncDispose]();
      if (volumes.some(({ name }) => name === volume)) return;
      const known = volumes.map(({ name }) => name).join(', ') || 'none';
      throw new MetadataError('ENOENT', `there is no volume "${volume}" in ${directory}; it has: ${known}`);
    } finally {
      await engine[Symbol.asyncDispose]();
    }
  }

  /** Rejects with nothing left open. The reason of `pages` comes before the engine's, and that before the storage node's. */
  static async open(directory: string, options: EmbeddedOptions): Promise<EmbeddedService> {
    const { clock, phases = new Phases(clock) } = options;
    const pagesOpening = Promise.resolve(options.pages);
    // Both are awaited below, one after the other.
    pagesOpening.catch(() => undefined);
    // Of a newer store not even a lock is touched.
    readIdentity(directory);
    const loading = phases.during('storage', () =>
      LoadedStorageNode.load({ id: STORAGE_NODE_ID, directory: join(directory, 'data') }),
    );
    loading.catch(() => undefined);
    const opened: AsyncDisposable[] = [];
    try {
      const pages = await pagesOpening;
      const { engine, id } = await phases.during('engine', () => openMetadata(directory));
      opened.push(engine);
      const loaded = await loading;
      const node = await phases.during('storage', () => loaded.start(pages));
      opened.push(node);
      return await phases.during('recovery', async () => {
        const metadata = await MetadataService.open([engine]);
        opened.push(metadata);
        const sessions = new SessionStore({ engines: [engine], engineOf: () => engine }, { clock });
        opened.push(sessions);
        const service = new EmbeddedService(directory, id, engine, metadata, sessions, node, clock);
        await service.#recover();
        return service;
      });
    } catch (error) {
      // What went wrong first is what the caller hears.
      await closeAll(opened.reverse());
      const loaded = await loading.catch(() => undefined);
      await loaded?.[Symbol.asyncDispose]();
      throw error;
    }
  }

  openSession(credential: Credential, volume: string, clientName: string): Promise<Session> {
    return this.#access.openSession(credential, volume, clientName);
  }

  /** ENXIO for a node that this service does not have. */
  storage(node: number): StorageNode {
    if (node !== STORAGE_NODE_ID) throw new MetadataError('ENXIO', `no storage node ${node} in this store`);
    return this.node;
  }

  /** The node for a new stripe, and the stripe's place and length. */
  placeStripe(): number {
    return STORAGE_NODE_ID;
  }

  readonly stripeGeometry = (offset: number): StripePlace => stripePlaceAt(offset);

  storageStatistics(): StorageStatistics {
    return this.node.statistics();
  }

  /** Checks the invariants of metadata and of the storage node, and that every stripe a file has is really there. */
  async fsck(
    volume: string,
    progress: (inodesDone: number, inodesTotal: number) => void,
  ): Promise<EmbeddedFsckReport> {
    const report = await this.metadata.fsck(volume);
    const problems = report.findings.map(({ code, message }) => ({ message: `${code}: ${message}` }));
    let leftOut = report.findingsLeftOut;
    const add = (message: string): void => {
      if (problems.length < PROBLEMS_MAX) problems.push({ message });
      else leftOut += 1;
    };
    for (const message of await this.node.check()) add(`storage: ${message}`);
    const { metadata } = await this.#open(volume);
    let stripesChecked = 0;
    for await (const stripe of knownStripes(metadata.cluster, metadata.keys)) {
      if (!stripe.isCurrent) continue;
      stripesChecked += 1;
      const { id, version } = stripe;
      await this.storage(stripe.node)
        .presence(id, version, 0, 1)
        .catch((error: Error) => add(`stripe ${id} version ${version}: ${error.message}`));
      if (stripesChecked % 1024 === 0) progress(Math.min(stripesChecked, report.inodes), report.inodes);
    }
    progress(report.inodes, report.inodes);
    if (leftOut > 0) problems.push({ message: `and ${leftOut} more` });
    return { inodesChecked: report.inodes, stripesChecked, problems };
  }

  /** Drops staged versions that no volume knows (collect.ts); answers how many. */
  async collect(options: CollectOptions): Promise<number> {
    const volumes: MetadataVolume[] = [];
    for (const { name } of await this.metadata.volumes()) volumes.push((await this.#open(name)).metadata);
    return collect(volumes, this.node, options);
  }

  scrub(progress: (donePages: number, totalPages: number) => void): Promise<ScrubReport> {
    return this.node.scrub(progress);
  }

  /** The content hash of every file of a volume, as published. `onBytes` is told of bytes read, and about how many there are. */
  async *contentManifest(
    volume: string,
    onBytes: (bytes: number, total: number) => void,
    signal: AbortSignal,
  ): AsyncGenerator<ContentEntry> {
    const { metadata } = await this.#open(volume);
    const { bytesUsed } = await metadata.statistics();
    // Its threads are not small, and a mount needs none of them.
    const { BulkPool } = await import('../storage/bulk/pool.js');
    await using pool = new BulkPool();
    const source = { volume: metadata, storage: (node: number) => this.storage(node), pool };
    yield* contentManifest(source, { signal, onBytes: (bytes) => onBytes(bytes, bytesUsed) });
  }

  stats(): Record<string, number> {
    return { ...this.#access.stats(), ...this.engine.stats() };
  }

  /** Nothing stays open, whatever fails; rejects with the first failure. */
  async [Symbol.asyncDispose](): Promise<void> {
    const failures = await closeAll([this.#access, this.sessions, this.metadata, this.node, this.engine]);
    if (failures.length > 0) throw failures[0];
  }

  /** Every volume hears of the ends of sessions, of those that a crash left half-ended too. */
  async #recover(): Promise<void> {
    this.sessions.onEnded(async ({ id }, reason) => {
      for (const { name } of await this.metadata.volumes()) {
        const { metadata, locks } = await this.#open(name);
        await locks.endSession(id, reason);
        await metadata.endSession(id);
      }
    });
    await this.sessions.recover();
    this.sessions.startSweeping();
  }

  #open(name: string): Promise<OpenVolume> {
    let opening = this.#volumes.get(name);
    if (opening === undefined) {
      opening = this.#load(name);
      opening.catch(() => this.#volumes.delete(name));
      this.#volumes.set(name, opening);
    }
    return opening;
  }

  async #load(name: string): Promise<OpenVolume> {
    const { engine, sessions } = this;
    const metadata = await this.metadata.volume(name);
    const locks = new LockService({
      keys: metadata.keys,
      engines: [engine],
      engineOf: () => engine,
      sessions,
    });
    return { metadata, locks };
  }

  async #find(name: string): Promise<Volume | undefined> {
    try {
      const { metadata, locks } = await this.#open(name);
      const { uid } = statSync(this.directory);
      return { name, ownerUid: uid, allowedUids: [], namespace: metadata, locks };
    } catch (error) {
      if ((error as { code?: string }).code === 'ENOENT') return undefined;
      throw error;
    }
  }
}

/** One after the other, each whatever became of those before it; answers what failed. */
async function closeAll(parts: readonly AsyncDisposable[]): Promise<unknown[]> {
  const failures: unknown[] = [];
  for (const part of parts) {
    try {
      await part[Symbol.asyncDispose]();
    } catch (error) {
      failures.push(error);
    }
  }
  return failures;
}
