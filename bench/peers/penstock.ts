// This file system, mounted through its command line.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { MountUnderTest, mountUnavailable } from '../../test/support/mount-under-test.js';
import { type Peer, PeerUnavailable } from './peer.js';

export const penstock: Peer = peerOf('penstock', []);

/** The same over one channel to the kernel, whatever the default is. */
export const overDevice: Peer = peerOf('device', ['-o', 'io_uring=off']);
export const overIoUring: Peer = peerOf('io_uring', ['-o', 'io_uring=on']);

/** The same, never kept from halting a CPU. */
export const halting: Peer = peerOf('halting', ['-o', 'halt_poll=off']);

function peerOf(name: string, options: readonly string[]): Peer {
  return {
    name,
    slow: false,
    packages: [],
    async start(base) {
      const reason = mountUnavailable();
      if (reason) throw new PeerUnavailable(reason);
      const directory = join(base, name);
      mkdirSync(directory);
      const mount = await MountUnderTest.start({ cacheSize: '4G', directory, arguments: options });
      return {
        path: mount.path,
        settle: async () => mount.drain().then(() => 0),
        stop: () => mount[Symbol.asyncDispose](),
      };
    },
  };
}
