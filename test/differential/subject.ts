// A mount of ours as the subject of a comparison, and a reference for it.
import { mkdtempSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MountUnderTest } from '../support/mount-under-test.js';
import type { Subject } from './compare.js';
import type { Between } from './program.js';

const EXT4 = 0xef53;
const XFS = 0x58465342;

/** The disk where its file system is one to learn from, else memory. The caller removes it. */
export function makeReference(): string {
  const disk = [EXT4, XFS].includes(statfsSync(tmpdir()).type);
  return mkdtempSync(join(disk ? tmpdir() : '/dev/shm', 'penstock-reference-'));
}

export function subjectOf(mount: MountUnderTest): Subject {
  const interruptions: Record<Exclude<Between, 'nothing'>, () => Promise<void>> = {
    drain: () => mount.drain(),
    remount: () => mount.remount(),
    evict: () => mount.evict(),
    kill: async () => {
      await mount.kill9();
      await mount.mount();
    },
  };
  return {
    root: mount.path,
    betweens: ['drain', 'remount', 'evict', 'kill'],
    async interrupt(between) {
      if (between !== 'nothing') await interruptions[between]();
    },
  };
}
