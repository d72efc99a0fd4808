// The provider of volumes that the command line and the library use: the gateway, after a look at the host.
import { formatStore, mount } from '../gateway/mount.js';
import type { VolumeProvider } from '../gateway/mount-contract.js';
import { checkHost } from '../gateway/mountpoint.js';

export const volumeProvider: VolumeProvider = {
  formatStore,
  async mount(options) {
    checkHost();
    return mount(options);
  },
};
