// A metadata service on engines of a given kind, with a live session, for the tests of this folder.
import type { KvEngine } from '../../src/kv/engine.js';
import { MemoryEngine } from '../../src/kv/memory-engine.js';
import type { ClusterOptions } from '../../src/metadata/cluster.js';
import type { Caller } from '../../src/metadata/contract.js';
import { sessionKey } from '../../src/metadata/keys.js';
import { MetadataService } from '../../src/metadata/service.js';
import { encodeSessionFence, SessionState } from '../../src/metadata/session-fence.js';
import { formatStore, type VolumeOptions } from '../../src/metadata/store.js';
import type { Volume } from '../../src/metadata/volume.js';

export const SESSION = 4096 + 7;
export const EPOCH = 3;

export const root: Caller = { session: SESSION, epoch: EPOCH, uid: 0, gid: 0, umask: 0o022 };
export const user = (uid: number, gid: number, groups: readonly number[] = []): Caller => ({
  session: SESSION,
  epoch: EPOCH,
  uid,
  gid,
  groups,
  umask: 0o022,
});

export const name = (text: string): Buffer => Buffer.from(text);
export const closed = (): boolean => false;
export const opened = (): boolean => true;

export const REG = 0o100000;
export const DIR = 0o040000;
export const S_IFMT = 0o170000;

export interface Bench {
  readonly engines: readonly KvEngine[];
  readonly service: MetadataService;
  readonly volume: Volume;
}

export const memoryEngines = (count: number): MemoryEngine[] =>
  Array.from({ length: count }, () => new MemoryEngine());

export async function setSession(
  engines: readonly KvEngine[],
  session = SESSION,
  epoch = EPOCH,
  state = SessionState.Live,
): Promise<void> {
  for (const engine of engines) {
    await engine.transact((txn) => txn.put(sessionKey(session), encodeSessionFence(epoch, state)));
  }
}

export async function makeBench(
  engines: readonly KvEngine[],
  volumeOptions: VolumeOptions = {},
  options: ClusterOptions = {},
): Promise<Bench> {
  await formatStore(engines);
  return makeVolume(engines, volumeOptions, options);
}

/** The same on a store that is formatted. */
export async function makeVolume(
  engines: readonly KvEngine[],
  volumeOptions: VolumeOptions = {},
  options: ClusterOptions = {},
): Promise<Bench> {
  await setSession(engines);
  const service = await MetadataService.open(engines, options);
  await service.createVolume('v', volumeOptions);
  return { engines, service, volume: await service.volume('v') };
}

/** The errno that a promise fails with; 'none' if it does not. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'none';
  } catch (error) {
    return (error as { code?: string }).code ?? `no code: ${(error as Error).stack}`;
  }
}
