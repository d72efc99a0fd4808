// penstock scrub: reads every stored page and verifies its checksum; with a manifest, reads every file and compares its content
// hash with an earlier one.
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { ContentEntry } from '../../access/content-manifest.js';
import { formatSize } from '../../daemon/size.js';
import type { ManifestReport } from '../../gateway/mount-contract.js';
import type { ScrubReport } from '../../storage/contract.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import { type Context, Finding } from '../context.js';
import { callDaemon, mountOn } from '../find-daemon.js';
import { type Comparison, ManifestComparison } from '../manifest-comparison.js';
import { ManifestWriter, readManifest } from '../manifest-file.js';

interface Options extends CommonOptions {
  readonly manifest?: string;
  readonly saveManifest?: string;
}

export function register(program: Command, context: Context): void {
  defineCommand(program, {
    usage: 'scrub <mountpoint>',
    description:
      'read everything that is stored and verify its checksums; exit code 1 if something is damaged',
    example:
      'penstock scrub ./mnt\npenstock scrub ./mnt --save-manifest june.manifest   # what every file holds\npenstock scrub ./mnt --manifest june.manifest        # later: whether it still does',
  })
    .option('--manifest <file>', 'hash every file and compare with this manifest of an earlier scrub')
    .option('--save-manifest <file>', 'hash every file and write a manifest')
    .action((path: string, options: Options) =>
      options.manifest === undefined && options.saveManifest === undefined
        ? scrubPages(context, path, options)
        : scrubContents(context, path, options),
    );
}

async function scrubPages(context: Context, path: string, options: Options): Promise<void> {
  const report = await callDaemon<ScrubReport>(context, mountOn(context, path), 'scrub');
  const { damaged, pagesChecked } = report;
  print(context, options, report, () =>
    [
      ...damaged.map(
        ({ stripe, version, page }) => `stripe ${stripe} version ${version}: page ${page} is damaged`,
      ),
      `${pagesChecked} pages checked, ${damaged.length === 0 ? 'none' : damaged.length} damaged`,
    ].join('\n'),
  );
  if (damaged.length > 0) throw new Finding();
}

async function scrubContents(context: Context, path: string, options: Options): Promise<void> {
  const at = (file: string): string => resolve(context.directory, file);
  const mount = mountOn(context, path);
  const earlier = options.manifest === undefined ? undefined : await readManifest(at(options.manifest));
  await using writer =
    options.saveManifest === undefined ? undefined : await ManifestWriter.create(at(options.saveManifest));
  const comparison = new ManifestComparison(earlier);
  const onItems = async (items: readonly unknown[]): Promise<void> => {
    const entries = items as readonly ContentEntry[];
    for (const entry of entries) comparison.add(entry);
    await writer?.add(entries);
  };
  const parameters = earlier === undefined ? {} : { expected: earlier.identity };
  const report = await callDaemon<ManifestReport>(context, mount, 'manifest', parameters, { onItems });
  await writer?.finish(report.identity, new Date(context.clock.wallMs()));
  const result = comparison.result();
  print(context, options, { ...report, ...result }, () => text(report, result));
  if (result.damaged.length > 0) throw new Finding();
}

function text(report: ManifestReport, { damaged, since, ...compared }: Comparison): string {
  const { files, bytes, hashingMs } = report;
  const rate = formatSize(bytes / (Math.max(hashingMs, 1) / 1000));
  const { intact, changed, added, removed } = compared;
  return [
    ...damaged.map(({ path, problem }) => `${path}: ${problem}`),
    ...(since === undefined
      ? []
      : [
          `since ${since}: ${intact} as they were, ${changed.length} written, ${added.length} new, ${removed.length} removed`,
        ]),
    `${files} files with ${formatSize(bytes)} hashed, ${rate}/s, ${damaged.length === 0 ? 'none' : damaged.length} damaged`,
  ].join('\n');
}
