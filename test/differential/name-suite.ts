// Random programs over the namespace: few names, so that operations meet; three users, so that permissions are asked; odd
// names (255 bytes and one more, not UTF-8, spaces), links, open files without a name, extended attributes and ACLs.
import fc from 'fast-check';
import { line, type Suite } from './program.js';

const LONGEST = `L${'x'.repeat(254)}`;
const name = fc.oneof(
  { weight: 10, arbitrary: fc.constantFrom('a', 'b', 'c', 'd') },
  { weight: 1, arbitrary: fc.constantFrom('a%20b', '%FF%FE', '%C3%A4', '%0A', LONGEST, `${LONGEST}y`) },
);
const forward = fc.oneof(
  { weight: 12, arbitrary: fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/')) },
  { weight: 1, arbitrary: name.map((one) => `${one}/`) },
  { weight: 1, arbitrary: fc.constantFrom('.', 'a/.', '%', 'a//b') },
);
const withParents = fc.oneof(
  { weight: 20, arbitrary: forward },
  { weight: 1, arbitrary: fc.constantFrom('..', 'a/..', 'a/b/../c') },
);
const slot = fc.nat(5);
const mode = fc.constantFrom(
  '0',
  '700',
  '755',
  '777',
  '644',
  '600',
  '1777',
  '2775',
  '4755',
  '6711',
  '70',
  '7',
);
const user = fc.constantFrom('0 0', '1001 1001', '1002 1001', '1003 2001');
const userId = fc.constantFrom(-1, 0, 1001, 1002);
const groupId = fc.constantFrom(-1, 0, 1001, 2001);
const seed = fc.nat(250).map((value) => value + 1);
const size = fc.constantFrom(0, 1, 100, 4096, 70_000);
const time = fc.oneof(
  { weight: 1, arbitrary: fc.constantFrom('now', 'omit') },
  {
    weight: 3,
    arbitrary: fc
      .tuple(fc.integer({ min: -1_000_000_000, max: 1_200_000_000 }), fc.nat(999_999_999))
      .map(([seconds, nanoseconds]) => `${seconds}.${nanoseconds}`),
  },
);
const bits = fc.nat(7);

export const nameSuite: Suite = {
  name: 'namespace',
  features: ['users', 'xattr', 'acl', 'exchange', 'noreplace'],
  prologue: ['mkdir a 777', 'mkdir b 777', 'put a/a 100 1', 'put c 5000 2', 'symlink a d'],
  operation(features) {
    // Without a root directory of its own (and the right to make one) a program must not climb.
    const path = features.has('users') ? withParents : forward;
    const renames = ['-', '-', '-'];
    if (features.has('exchange')) renames.push('exchange');
    if (features.has('noreplace')) renames.push('noreplace');
    const kind = fc.constantFrom('fifo', 'socket', 'file', 'device');
    const flags = fc.constantFrom('r', 'b', 'bc', 'bcx', 'bct', 'bcn', 'rn', 'rD', 'rnp', 'wc');
    const choices: { weight: number; arbitrary: fc.Arbitrary<string> }[] = [
      { weight: 6, arbitrary: line('mkdir', path, mode) },
      { weight: 3, arbitrary: line('mknod', path, kind, mode) },
      { weight: 3, arbitrary: line('symlink', path, path) },
      { weight: 4, arbitrary: line('link', path, path) },
      { weight: 5, arbitrary: line('unlink', path) },
      { weight: 3, arbitrary: line('rmdir', path) },
      { weight: 9, arbitrary: line('rename', path, path, fc.constantFrom(...renames)) },
      { weight: 4, arbitrary: line('chmod', path, mode) },
      { weight: 3, arbitrary: line('chown', path, userId, groupId) },
      { weight: 3, arbitrary: line('utimens', path, time, time) },
      { weight: 6, arbitrary: line('put', path, size, seed) },
      { weight: 3, arbitrary: line('get', path) },
      { weight: 4, arbitrary: line('lstat', path) },
      { weight: 3, arbitrary: line('stat', path) },
      { weight: 2, arbitrary: line('readlink', path) },
      { weight: 4, arbitrary: line('readdir', path) },
      { weight: 2, arbitrary: line('access', path, fc.nat(7)) },
      { weight: 2, arbitrary: line('truncate', path, size) },
      { weight: 1, arbitrary: line('deep', path, fc.constantFrom(3, 30)) },
      { weight: 1, arbitrary: line('umask', fc.constantFrom('0', '22', '77', '27')) },
      { weight: 1, arbitrary: line('churn', path, fc.constantFrom(5, 60)) },
      { weight: 6, arbitrary: line('open', slot, path, flags, mode) },
      { weight: 2, arbitrary: line('close', slot) },
      { weight: 2, arbitrary: line('write', slot, size, seed) },
      { weight: 2, arbitrary: line('pread', slot, fc.constant(0), size) },
      { weight: 4, arbitrary: line('fstat', slot) },
      { weight: 1, arbitrary: line('fchmod', slot, mode) },
      { weight: 1, arbitrary: line('fchown', slot, userId, groupId) },
      { weight: 1, arbitrary: line('ftruncate', slot, size) },
      { weight: 1, arbitrary: line('fsync', slot) },
    ];
    if (features.has('users')) {
      choices.push({ weight: 4, arbitrary: fc.oneof(line('as', user), fc.constant('as 0 0')) });
    }
    if (features.has('xattr')) {
      const attribute = fc.constantFrom('user.one', 'user.two', 'trusted.three');
      const how = fc.constantFrom('-', 'create', 'replace');
      choices.push(
        {
          weight: 3,
          arbitrary: line('setxattr', path, attribute, fc.constantFrom(0, 1, 40, 900), seed, how),
        },
        { weight: 2, arbitrary: line('getxattr', path, attribute) },
        { weight: 2, arbitrary: line('listxattr', path) },
        { weight: 1, arbitrary: line('removexattr', path, attribute) },
      );
    }
    if (features.has('acl')) {
      const which = fc.constantFrom('access', 'default');
      const named = fc.constantFrom('-', '1001', '1002');
      choices.push({ weight: 3, arbitrary: line('acl', path, which, named, bits, bits, bits, bits, bits) });
    }
    return fc.oneof(...choices);
  },
};
