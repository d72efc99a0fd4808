// A disk of a few megabytes: a tmpfs, so that filling it takes no time and no loop device.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';

export class SmallDisk implements Disposable {
  constructor(
    readonly path: string,
    readonly mebibytes: number,
  ) {
    mkdirSync(path, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'small-disk', path]);
  }

  makeReadOnly(): void {
    execFileSync('mount', ['-o', 'remount,ro', this.path]);
  }

  resize(mebibytes: number): void {
    execFileSync('mount', ['-o', `remount,size=${mebibytes}m`, this.path]);
  }

  [Symbol.dispose](): void {
    spawnSync('umount', ['-l', this.path]);
  }
}
