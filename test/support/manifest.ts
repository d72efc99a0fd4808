// What a tree holds, as text: path, type and permission bits, size, mtime in nanoseconds, sha-256 of the contents or the
// target of a symbolic link. Two manifests that are equal are trees that are equal.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';

export type Manifest = ReadonlyMap<string, string>;

export async function manifest(root: string): Promise<Manifest> {
  const found = new Map<string, string>();
  const visit = async (relative: string): Promise<void> => {
    const entries = await readdir(join(root, relative));
    for (const entry of entries.sort()) {
      const name = join(relative, entry);
      const status = await lstat(join(root, name), { bigint: true });
      const common = `${status.mode.toString(8)} ${status.mtimeNs}`;
      if (status.isDirectory()) {
        found.set(name, common);
        await visit(name);
      } else if (status.isSymbolicLink()) {
        found.set(name, `${common} -> ${await readlink(join(root, name))}`);
      } else if (status.isFile()) {
        found.set(name, `${common} ${status.size} ${await contentHash(join(root, name))}`);
      } else {
        found.set(name, common);
      }
    }
  };
  await visit('');
  return found;
}

export async function contentHash(path: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(piece);
  } catch (error) {
    throw new Error(`${path}: ${(error as Error).message}`, { cause: error });
  }
  return hash.digest('hex').slice(0, 32);
}

/** The lines that differ, at most `limit`; empty when the manifests are equal. */
export function differences(expected: Manifest, actual: Manifest, limit = 10): string[] {
  const found: string[] = [];
  for (const path of new Set([...expected.keys(), ...actual.keys()])) {
    if (expected.get(path) === actual.get(path)) continue;
    found.push(
      `${path}: expected ${expected.get(path) ?? 'nothing'}, found ${actual.get(path) ?? 'nothing'}`,
    );
    if (found.length >= limit) break;
  }
  return found;
}
