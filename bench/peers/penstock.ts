// This file system, mounted through its command line.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { MountUnderTest, mountUnavailable } from '../../test/support/mount-under-test.js';
import { type Peer, PeerUnavailable } from './peer.js';

export const penstock: Peer = {
  name: 'penstock',
  slow: false,
  packages: [],
  async start(base) {
    const reason = mountUnavailable();
    if (reason) throw new PeerUnavailable(reason);
    const directory = join(base, 'penstock');
    mkdirSync(directory);
    const mount = await MountUnderTest.start({ cacheSize: '4G', directory });
    return {
      path: mount.path,
      settle: async () => mount.drain().then(() => 0),
      stop: () => mount[Symbol.asyncDispose](),
    };
  },
};
