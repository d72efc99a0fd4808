// What is measured against what: a peer is a file system that a user might pick instead, started below one base directory
// so that all keep their data on the same disk.
import { spawnSync } from 'node:child_process';

export interface RunningPeer {
  readonly path: string;
  /**
   * Returns when everything written is where the peer keeps it (in its store, on the disk); answers how many of the
   * milliseconds were only spent on making sure, so that they can be left out.
   */
  settle(): Promise<number>;
  stop(): Promise<void>;
}

export interface Peer {
  readonly name: string;
  /** Slow peers get fewer files and fewer bytes; the output says so. */
  readonly slow: boolean;
  /** Debian packages whose programs it needs. */
  readonly packages: readonly string[];
  start(base: string): Promise<RunningPeer>;
}

export class PeerUnavailable extends Error {}

const PROGRAM_OF: Readonly<Record<string, string>> = {
  'libfuse3-dev': 'pkg-config --exists fuse3',
  rclone: 'command -v rclone',
  s3fs: 'command -v s3fs',
  fio: 'command -v fio',
};

/** Installs what is missing, as root on Debian or Ubuntu; elsewhere the error names it. */
export function requirePackages(packages: readonly string[]): void {
  const missing = () =>
    packages.filter((name) => spawnSync('sh', ['-c', PROGRAM_OF[name] ?? 'false']).status !== 0);
  const wanted = missing();
  if (wanted.length === 0) return;
  if (process.getuid?.() === 0) {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const install = `apt-get install -y -q ${wanted.join(' ')}`;
    spawnSync('sh', ['-c', `${install} || { apt-get update -q && ${install}; }`], { env });
  }
  if (missing().length > 0) throw new PeerUnavailable(`needs the Debian packages ${missing().join(', ')}`);
}
