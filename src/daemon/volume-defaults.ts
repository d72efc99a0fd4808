// What a volume gets that nobody said anything about.
import { existsSync, statfsSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { shortHash } from './runtime-directory.js';

export const DEFAULT_VOLUME = 'default';
export const CACHE_BYTES_MIN = 16 * 2 ** 20;
const CACHE_BYTES_DEFAULT = 10 * 2 ** 30;
const CACHE_SHARE_OF_FREE = 0.5;

/** Where daemons of this user keep what must survive a reboot. */
export function stateDirectory(environment: NodeJS.ProcessEnv): string {
  const state = environment.XDG_STATE_HOME || join(homedir(), '.local/state');
  return process.getuid?.() === 0 ? '/var/lib/penstock' : join(state, 'penstock');
}

/**
 * One for each volume, in a place that survives a reboot and that nobody clears: a cache holds what is not yet published.
 */
export function defaultCacheDirectory(
  store: string,
  volume: string,
  environment: NodeJS.ProcessEnv = process.env,
): string {
  return join(stateDirectory(environment), 'cache', `${volume}-${shortHash(store)}`);
}

/** 10 GiB, or half of what is free on the cache's file system if that is less. */
export function defaultCacheBytes(cacheDirectory: string): number {
  let existing = cacheDirectory;
  while (!existsSync(existing)) existing = dirname(existing);
  const { bavail, bsize } = statfsSync(existing);
  const share = Math.floor(bavail * bsize * CACHE_SHARE_OF_FREE);
  return Math.max(CACHE_BYTES_MIN, Math.min(CACHE_BYTES_DEFAULT, share));
}
