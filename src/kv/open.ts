// Opens the engine that a store's URL names. The only place that knows them all.

import { resolve } from 'node:path';
import { type KvEngine, KvError } from './engine.js';
import { MemoryEngine } from './memory-engine.js';
import { RocksEngine } from './rocks-engine.js';

/** `memory:` | `file:DIR` | `postgres://...` */
export async function openEngine(url: string): Promise<KvEngine> {
  if (url === 'memory:') return new MemoryEngine();
  if (url.startsWith('file:')) return RocksEngine.open(resolve(url.slice('file:'.length)));
  if (/^postgres(ql)?:\/\//.test(url)) {
    throw new KvError('KV_IO', 'the PostgreSQL engine is not part of this version; use file:DIR');
  }
  throw new KvError('KV_IO', `"${url}" names no key-value engine; use file:DIR or memory:`);
}
