// The channel over io_uring: the suites of the transport once more on it, then a whole volume: what is chosen and shown,
// differential programs, kills of the daemon. One file, since the kernel's switch is for the whole machine: it is put on here
// and back at the end.
import { rmSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { channelOptions } from '../../src/gateway/channel-options.js';
import { compare } from '../differential/compare.js';
import { dataSuite } from '../differential/data-suite.js';
import { nameSuite } from '../differential/name-suite.js';
import { makeReference, subjectOf } from '../differential/subject.js';
import { Lives } from '../kill/life.js';
import { enableIoUring, ioUringUnavailable, isIoUringOn } from '../support/io-uring.js';
import { MountUnderTest, mountUnavailable } from '../support/mount-under-test.js';

const unavailable = ioUringUnavailable() ?? mountUnavailable();
if (unavailable) process.stderr.write(`left out, because ${unavailable}\n`);
const wasOff = !isIoUringOn();

describe('the options of the channel', () => {
  it('are taken out of those of mount(8)', () => {
    const given = ['nosuid', 'io_uring=on', 'io_uring_depth=8', 'halt_poll=off', 'ro'];
    expect(channelOptions(given, 'native')).toEqual({
      ioUring: 'on',
      ioUringDepth: 8,
      haltPoll: false,
      mountOptions: ['nosuid', 'ro'],
    });
  });

  it('are refused with what is allowed', () => {
    const refused = (option: string) => () => channelOptions([option], 'native');
    expect(refused('io_uring=yes')).toThrow('io_uring=yes: expected one of auto, on, off');
    expect(refused('io_uring')).toThrow('expected one of');
    expect(refused('halt_poll=on')).toThrow('halt_poll=on: expected one of auto, off');
    expect(refused('io_uring_depth=0')).toThrow('io_uring_depth=0: expected 1 to 256');
    expect(() => channelOptions(['io_uring=on'], 'fuse-native')).toThrow('needs the native transport');
  });
});

describe.skipIf(unavailable || !wasOff)('where the switch is off', () => {
  // Another checkout's tests may have switched it on meanwhile.
  beforeEach(({ skip }) => skip(isIoUringOn(), 'somebody switched io_uring on'));

  it('auto takes the device and logs why, once', async () => {
    await using mount = await MountUnderTest.start({ arguments: ['-o', 'io_uring=auto'] });
    expect(await mount.status()).toMatchObject({ transport: 'native', channel: 'device' });
    expect(mount.log.match(/io_uring is not used/g)).toHaveLength(1);
    expect(mount.log).toContain('the kernel does not offer FUSE over io_uring');
  });

  it('on is refused with what to do, and nothing stays mounted', async () => {
    const mount = MountUnderTest.start({ arguments: ['-o', 'io_uring=on'] });
    await expect(mount).rejects.toThrow(/does not offer FUSE over io_uring; it needs Linux 6\.14/);
  });
});

describe.skipIf(unavailable)('over io_uring', () => {
  let disable: () => void = () => {};
  beforeAll(() => {
    disable = enableIoUring();
    process.env.PENSTOCK_TEST_IO_URING = 'on';
  });
  afterAll(() => {
    delete process.env.PENSTOCK_TEST_IO_URING;
    disable();
  });

  describe('operations', () => import('./smoke.test.js').then(() => {}));
  describe('the data path', () => import('./data-path.test.js').then(() => {}));
  describe('locks', () => import('./locks.test.js').then(() => {}));
  describe('coherence', () => import('./coherence.test.js').then(() => {}));
  describe('passthrough', () => import('./passthrough.test.js').then(() => {}));
  describe('life', () => import('./lifecycle.test.js').then(() => {}));

  it('status and counters say so', async () => {
    await using mount = await MountUnderTest.start({ arguments: ['-o', 'io_uring=on,io_uring_depth=4'] });
    expect(await mount.status()).toMatchObject({ transport: 'native', channel: 'io_uring' });
    expect(await mount.command('status', mount.path)).toContain('native transport over io_uring');
    const stats = await mount.stats();
    expect(stats.fuseIoUring).toBe(1);
    expect(stats.fuseIoUringEntries).toBeGreaterThanOrEqual(8);
    await mount.umount();
  });

  describe('a volume', () => {
    let reference: string;
    let mount: MountUnderTest;
    beforeAll(async () => {
      reference = makeReference();
      mount = await MountUnderTest.start({ cacheSize: '64M', arguments: ['-o', 'io_uring=on'] });
    });
    afterAll(async () => {
      rmSync(reference, { recursive: true, force: true });
      await mount?.[Symbol.asyncDispose]();
    });

    for (const suite of [dataSuite, nameSuite]) {
      it(`${suite.name}: no difference to the disk`, { timeout: 120_000 }, async () => {
        const calm = { ...subjectOf(mount), betweens: [] };
        const { programs } = await compare({
          suite,
          reference,
          subject: calm,
          seed: 1,
          programsMax: 60,
          seconds: 60,
        });
        expect(programs).toBeGreaterThan(1);
        await mount.fsck();
        expect((await mount.stats()).fuseIoUringCommitFailures).toBe(0);
      });
    }
  });

  it('kill -9 of the daemon loses nothing acknowledged and leaves nothing hanging', {
    timeout: 120_000,
  }, async () => {
    await using mount = await MountUnderTest.start({
      cacheSize: '64M',
      arguments: ['-o', 'io_uring=on'],
    });
    const lives = new Lives(mount, 4);
    for (let kill = 0; kill < 2; kill += 1) {
      const life = await lives.live();
      expect(life.pressure.dirtyBytes).toBeGreaterThan(0);
      expect(await mount.status()).toMatchObject({ channel: 'io_uring' });
    }
    await mount.evict();
    await lives.verify();
  });
});
