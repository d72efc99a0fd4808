// Random programs over the bytes of a few files through many handles: positions crowd around the sizes at which something
// changes (page, 64 KiB where a small file becomes a large one, 1 MiB logical block, 4 MiB chunk).
import fc from 'fast-check';
import { line, type Suite } from './program.js';

const slot = fc.nat(7);
const file = fc.constantFrom('f0', 'f1', 'f2');
const seed = fc.nat(250).map((value) => value + 1);

const boundary = fc.oneof(
  { weight: 6, arbitrary: fc.nat(20).map((page) => page * 4096) },
  { weight: 3, arbitrary: fc.constant(65_536) },
  { weight: 2, arbitrary: fc.constant(1_048_576) },
  { weight: 1, arbitrary: fc.constant(4_194_304) },
);
const nudge = fc.oneof(
  { weight: 3, arbitrary: fc.constant(0) },
  { weight: 2, arbitrary: fc.integer({ min: -10, max: 10 }) },
  { weight: 1, arbitrary: fc.integer({ min: -4097, max: 4097 }) },
);
const offset = fc.tuple(boundary, nudge).map(([base, delta]) => Math.max(0, base + delta));
const length = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 100 }) },
  { weight: 3, arbitrary: fc.integer({ min: 4000, max: 4200 }) },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 20 }).map((pages) => pages * 4096) },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 70_000 }) },
  { weight: 1, arbitrary: fc.integer({ min: 200_000, max: 1_300_000 }) },
);
/** A mapping from the start of the file: the length decides how much of it. */
const mapped = fc.constantFrom(4096, 65_536, 131_072, 1_114_112);

export const dataSuite: Suite = {
  name: 'data',
  features: ['allocate', 'keep', 'punch', 'zero', 'copy', 'seek', 'direct', 'mmap', 'lock'],
  prologue: ['open 0 f0 bc 644', 'open 1 f0 r 0', 'open 2 f1 bc 644', 'open 3 f1 ba 0'],
  operation(features) {
    const modes = ['b', 'b', 'bc', 'bc', 'bct', 'r', 'w', 'ba', 'bac'];
    if (features.has('direct')) modes.push('bd', 'bdc', 'rd');
    const choices: { weight: number; arbitrary: fc.Arbitrary<string> }[] = [
      { weight: 4, arbitrary: line('open', slot, file, fc.constantFrom(...modes), fc.constant('644')) },
      { weight: 2, arbitrary: line('close', slot) },
      { weight: 12, arbitrary: line('pwrite', slot, offset, length, seed) },
      { weight: 12, arbitrary: line('pread', slot, offset, length) },
      { weight: 4, arbitrary: line('write', slot, length, seed) },
      { weight: 3, arbitrary: line('read', slot, length) },
      { weight: 2, arbitrary: line('lseek', slot, offset) },
      { weight: 4, arbitrary: line('ftruncate', slot, offset) },
      { weight: 2, arbitrary: line('truncate', file, offset) },
      { weight: 2, arbitrary: line('fsync', slot) },
      { weight: 1, arbitrary: line('fdatasync', slot) },
      { weight: 2, arbitrary: line('fstat', slot) },
      { weight: 1, arbitrary: line('unlink', file) },
      { weight: 1, arbitrary: line('rename', file, file, fc.constant('-')) },
      {
        weight: 1,
        arbitrary: line(
          'parallel',
          file,
          fc.constantFrom(2, 4),
          fc.constantFrom(4, 16, 64),
          fc.constantFrom(100, 4096, 20_000),
          seed,
        ),
      },
    ];
    const fallocateModes = [
      ...(features.has('allocate') ? ['alloc'] : []),
      ...(features.has('keep') ? ['keep'] : []),
      ...(features.has('punch') ? ['punch', 'punch'] : []),
      ...(features.has('zero') ? ['zero', 'zerokeep'] : []),
    ];
    if (fallocateModes.length > 0) {
      const mode = fc.constantFrom(...fallocateModes);
      choices.push({ weight: 4, arbitrary: line('fallocate', slot, mode, offset, length) });
    }
    if (features.has('copy')) {
      choices.push({ weight: 3, arbitrary: line('copy', slot, offset, slot, offset, length) });
    }
    if (features.has('lock')) {
      const kind = fc.constantFrom('r', 'w', 'u');
      const start = fc.constantFrom(0, 10, 4096);
      const span = fc.constantFrom(0, 1, 10, 5000);
      choices.push(
        { weight: 1, arbitrary: line('lock', slot, kind, start, span) },
        { weight: 1, arbitrary: line('flock', slot, kind) },
        { weight: 1, arbitrary: line('getlock', slot, fc.constantFrom('r', 'w'), start, span) },
      );
    }
    if (features.has('seek')) choices.push({ weight: 3, arbitrary: line('seekmap', slot) });
    if (features.has('mmap')) {
      choices.push(
        { weight: 3, arbitrary: line('mmap', slot, mapped) },
        { weight: 4, arbitrary: line('mread', slot, offset, length) },
        { weight: 4, arbitrary: line('mwrite', slot, offset, length, seed) },
        { weight: 2, arbitrary: line('msync', slot) },
        { weight: 1, arbitrary: line('munmap', slot) },
      );
    }
    return fc.oneof(...choices);
  },
};
