// Loads the npm package fuse-native, which needs libfuse 2 on the machine (its binding names libfuse.so.2 and no path, so
// the copy it ships is not found), and mends what would be unsafe: replies larger than the caller's buffer for extended
// attributes, and an unmount that puts the mountpoint into a shell command.
import type Fuse from 'fuse-native';
import type { Signal } from 'fuse-native';
import { ERANGE } from './errno.js';

export class FuseNativeUnavailable extends Error {
  readonly code = 'ENOSYS';
}

export async function loadFuseNative(): Promise<typeof Fuse> {
  let Package: typeof Fuse;
  try {
    Package = (await import('fuse-native')).default;
  } catch (cause) {
    const missing = /libfuse\.so\.2/.test(String(cause));
    const advice = missing ? 'install Debian package libfuse2' : 'is there a binary for this platform?';
    throw new FuseNativeUnavailable(`the fuse-native transport cannot be loaded: ${advice}`, { cause });
  }
  // The transport unmounts by itself; the package's own way is a no-op for everybody.
  Package.unmount = (_mountpoint, callback) => callback(null);
  return class extends Package {
    protected override _op_getxattr(signal: Signal, path: string, name: string, target: Buffer): void {
      this.ops.getxattr!(path, name, 0, (error, value) => {
        if (value === undefined) return signal(error, target.buffer);
        signal(fill(target, value), target.buffer);
      });
    }

    protected override _op_listxattr(signal: Signal, path: string, target: Buffer): void {
      this.ops.listxattr!(path, (error, names) => {
        if (names === undefined) return signal(error, target.buffer);
        signal(fill(target, Buffer.from(names.map((name) => `${name}\0`).join(''))), target.buffer);
      });
    }
  };
}

/** As getxattr(2): the size alone when there is no room at all, ERANGE when there is too little. */
function fill(target: Buffer, value: Buffer): number {
  if (target.length === 0) return value.length;
  if (value.length > target.length) return -ERANGE;
  return value.copy(target);
}
