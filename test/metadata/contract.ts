// What any metadata service must do, whatever its engine and its number of nodes. Each test ends with an fsck.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { KvEngine } from '../../src/kv/engine.js';
import {
  type Attributes,
  type Caller,
  InodeFlag,
  type Made,
  type Publish,
  RenameFlag,
  type Timespec,
  XattrMode,
} from '../../src/metadata/contract.js';
import { MetadataService } from '../../src/metadata/service.js';
import { SessionState } from '../../src/metadata/session-fence.js';
import { formatStore, type VolumeOptions } from '../../src/metadata/store.js';
import type { Volume } from '../../src/metadata/volume.js';
import {
  closed,
  codeOf,
  DIR,
  EPOCH,
  name,
  opened,
  REG,
  root,
  S_IFMT,
  SESSION,
  setSession,
  user,
} from './support.js';

export interface Subject {
  readonly engines: readonly KvEngine[];
  dispose(): Promise<void>;
}

const ACCESS = name('system.posix_acl_access');
const DEFAULT = name('system.posix_acl_default');
const MIB = 1024 * 1024;

/** [tag, perm, id] entries in the kernel's format. */
function acl(...entries: ReadonlyArray<readonly [number, number, number?]>): Buffer {
  const value = Buffer.alloc(4 + entries.length * 8);
  value.writeUInt32LE(2, 0);
  entries.forEach(([tag, perm, id = 0xffffffff], at) => {
    value.writeUInt16LE(tag, 4 + at * 8);
    value.writeUInt16LE(perm, 6 + at * 8);
    value.writeUInt32LE(id, 8 + at * 8);
  });
  return value;
}
const U = 1;
const USER = 2;
const G = 4;
const MASK = 0x10;
const O = 0x20;

export function namespaceContract(label: string, open: () => Promise<Subject>): void {
  describe(label, () => {
    let subject: Subject;
    let service: MetadataService;
    let volume: Volume;
    /** Each test has a volume of its own; opening an engine costs more than any of them. */
    let volumes = 0;
    let current = '';
    /** Strictly growing, so that a test can tell whether an operation moved a time. */
    let seconds = 1000;
    const clock = (): Timespec => ({ sec: ++seconds, nsec: 5 });

    const start = async (options: VolumeOptions = {}): Promise<void> => {
      await setSession(subject.engines);
      current = `v${++volumes}`;
      await service.createVolume(current, { rootMode: 0o777, ...options });
      volume = await service.volume(current);
    };
    const mkdir = (parent: number, text: string, mode = 0o777, caller = root): Promise<Made> =>
      volume.makeDirectory(caller, parent, name(text), mode);
    const create = (parent: number, text: string, mode = 0o666, caller: Caller = root): Promise<Made> =>
      volume.makeNode(caller, parent, name(text), REG | mode, 0);
    const lookup = (parent: number, text: string): Promise<Attributes> =>
      volume.lookup(root, parent, name(text));
    const stat = (ino: number): Promise<Attributes> => volume.getAttributes(root, ino);
    const unlink = (parent: number, text: string) => volume.unlink(root, parent, name(text), closed);
    const rename = (from: number, old: string, to: number, text: string, flags = 0) =>
      volume.rename(root, from, name(old), to, name(text), flags, closed);
    const list = async (ino: number): Promise<string[]> =>
      (await volume.readDirectory(root, ino, 0n, 10_000, false)).map((entry) => entry.name.toString()).sort();
    const publication = (
      file: Attributes,
      pages: number,
      stripes: Publish['stripes'],
      removedStripes: readonly number[] = [],
    ): Publish => ({
      ino: file.ino,
      baseVersion: file.version,
      size: pages * 4096,
      pages,
      mtime: { sec: 7, nsec: 1 },
      ctime: { sec: 8, nsec: 2 },
      stripes,
      removedStripes,
    });

    beforeAll(async () => {
      subject = await open();
      await formatStore(subject.engines);
      service = await MetadataService.open(subject.engines, { now: clock });
    });
    afterEach(async () => {
      expect((await service.fsck(current)).findings).toEqual([]);
    });
    afterAll(async () => {
      await service[Symbol.asyncDispose]();
      await subject.dispose();
    });

    describe('names', () => {
      test('errors of names and of what they name', async () => {
        await start();
        const file = await create(1, 'file');
        const long = 'n'.repeat(256);
        expect(await codeOf(create(1, long))).toBe('ENAMETOOLONG');
        expect(await codeOf(create(1, 'n'.repeat(255)))).toBe('none');
        expect(await codeOf(lookup(1, long))).toBe('ENAMETOOLONG');
        expect(await codeOf(create(1, 'a/b'))).toBe('EINVAL');
        expect(await codeOf(create(1, '..'))).toBe('EINVAL');
        expect(await codeOf(create(1, 'file'))).toBe('EEXIST');
        expect(await codeOf(mkdir(1, 'file'))).toBe('EEXIST');
        expect(await codeOf(volume.makeSymlink(root, 1, name('file'), name('t')))).toBe('EEXIST');
        expect(await codeOf(create(file.ino, 'x'))).toBe('ENOTDIR');
        expect(await codeOf(lookup(file.ino, 'x'))).toBe('ENOTDIR');
        expect(await codeOf(create(4096 * 99 + 1, 'x'))).toBe('ENOENT');
        expect(await codeOf(lookup(1, 'absent'))).toBe('ENOENT');
        expect(await codeOf(stat(4096 * 99 + 5))).toBe('ENOENT');
        expect(await codeOf(volume.makeNode(root, 1, name('d'), DIR | 0o755, 0))).toBe('EPERM');
      });

      test('names are bytes', async () => {
        await start();
        const bytes = Buffer.from([0xff, 0x80, 0x01, 0x20]);
        await volume.makeNode(root, 1, bytes, REG | 0o644, 0);
        const [entry] = await volume.readDirectory(root, 1, 0n, 10, false);
        expect(entry?.name.equals(bytes)).toBe(true);
      });
    });

    describe('making inodes', () => {
      test('attributes of a new file, and what it does to its directory', async () => {
        await start();
        const before = await stat(1);
        const file = await create(1, 'f', 0o666, user(5, 6));
        expect(file).toMatchObject({ mode: REG | 0o644, nlink: 1, uid: 5, gid: 6, size: 0, pages: 0 });
        expect(file.ctime).toEqual(file.mtime);
        expect(file.atime).toEqual(file.mtime);
        const after = await stat(1);
        expect(after.mtime).toEqual(file.ctime);
        expect(after.ctime).toEqual(file.ctime);
        expect(after.atime).toEqual(before.atime);
        expect(after.nlink).toBe(2);
        const { directory, ...attributes } = file;
        expect(directory).toEqual(after);
        expect(await lookup(1, 'f')).toEqual(attributes);
      });

      test('what changes a directory answers the directory as it left it', async () => {
        await start();
        const [a, b] = [await mkdir(1, 'a'), await mkdir(1, 'b')];
        expect(b.directory).toEqual(await stat(1));
        const made = [
          await create(a.ino, 'f'),
          await volume.makeSymlink(root, a.ino, name('s'), name('target')),
          await mkdir(a.ino, 'd'),
        ];
        expect(made[2]!.directory).toEqual(await stat(a.ino));
        const linked = await volume.link(root, made[0]!.ino, b.ino, name('g'));
        expect(linked.directory).toEqual(await stat(b.ino));
        const across = await rename(a.ino, 'd', b.ino, 'd');
        expect(across.directories).toEqual([await stat(a.ino), await stat(b.ino)]);
        const within = await rename(a.ino, 's', a.ino, 't');
        expect(within.directories).toEqual([await stat(a.ino)]);
        const unlinked = await volume.unlink(root, a.ino, name('t'), closed);
        expect(unlinked.directory).toEqual(await stat(a.ino));
        const removed = await volume.removeDirectory(root, b.ino, name('d'), closed);
        expect(removed.directory).toEqual(await stat(b.ino));
      });

      test('special files keep their type and device', async () => {
        await start();
        const node = await volume.makeNode(root, 1, name('null'), 0o020666, 0x103);
        expect(node.mode & S_IFMT).toBe(0o020000);
        expect((await stat(node.ino)).rdev).toBe(0x103);
        const [entry] = await volume.readDirectory(root, 1, 0n, 10, false);
        expect(entry?.type).toBe(0o020000);
      });

      test('directories count links and know their parent', async () => {
        await start();
        const a = await mkdir(1, 'a');
        const b = await mkdir(a.ino, 'b');
        expect((await stat(1)).nlink).toBe(3);
        expect((await stat(a.ino)).nlink).toBe(3);
        expect((await stat(b.ino)).nlink).toBe(2);
        expect(await volume.parentOf(root, b.ino)).toBe(a.ino);
        expect(await volume.parentOf(root, 1)).toBe(1);
      });

      test('a file is born on the shard of its directory', async () => {
        await start();
        const a = await mkdir(1, 'a');
        const file = await create(a.ino, 'f');
        expect(file.ino % 4096).toBe(a.ino % 4096);
      });

      test('the group is inherited in a set-group-ID directory, and the bit by directories', async () => {
        await start();
        const shared = await mkdir(1, 'shared', 0o2777);
        await volume.setAttributes(root, shared.ino, { gid: 44, mode: 0o2777 });
        const file = await create(shared.ino, 'f', 0o2755, user(5, 6));
        expect(file).toMatchObject({ gid: 44, mode: REG | 0o755 });
        const inside = await create(shared.ino, 'g', 0o2755, user(5, 6, [44]));
        expect(inside.mode).toBe(REG | 0o2755);
        const directory = await mkdir(shared.ino, 'd', 0o755, user(5, 6));
        expect(directory).toMatchObject({ gid: 44, mode: DIR | 0o2755 });
      });

      test('symbolic links', async () => {
        await start();
        const link = await volume.makeSymlink(root, 1, name('l'), name('../target'));
        expect(link).toMatchObject({ mode: 0o120777, size: 9, nlink: 1 });
        expect((await volume.readSymlink(root, link.ino)).toString()).toBe('../target');
        expect(await codeOf(volume.readSymlink(root, 1))).toBe('EINVAL');
        expect(await codeOf(volume.makeSymlink(root, 1, name('m'), Buffer.alloc(4096, 'x')))).toBe(
          'ENAMETOOLONG',
        );
        await unlink(1, 'l');
      });
    });

    describe('links', () => {
      test('two names of one inode', async () => {
        await start();
        const dir = await mkdir(1, 'd');
        const file = await create(1, 'f');
        const linked = await volume.link(root, file.ino, dir.ino, name('g'));
        expect(linked).toMatchObject({ ino: file.ino, nlink: 2 });
        expect(linked.ctime).not.toEqual(file.ctime);
        expect((await stat(dir.ino)).mtime).toEqual(linked.ctime);
        const gone = await unlink(1, 'f');
        expect(gone).toMatchObject({ ino: file.ino, nlink: 1, removed: false });
        expect((await lookup(dir.ino, 'g')).nlink).toBe(1);
        expect(await unlink(dir.ino, 'g')).toMatchObject({ nlink: 0, removed: true });
        expect(await codeOf(stat(file.ino))).toBe('ENOENT');
      });

      test('what cannot be linked', async () => {
        await start();
        const dir = await mkdir(1, 'd');
        const file = await create(1, 'f');
        expect(await codeOf(volume.link(root, dir.ino, 1, name('x')))).toBe('EPERM');
        expect(await codeOf(volume.link(root, file.ino, 1, name('f')))).toBe('EEXIST');
        expect(await codeOf(volume.link(root, file.ino, file.ino, name('x')))).toBe('ENOTDIR');
        expect(await codeOf(volume.link(root, 4096 * 77 + 1, 1, name('x')))).toBe('ENOENT');
        await volume.unlink(root, 1, name('f'), opened);
        expect(await codeOf(volume.link(root, file.ino, 1, name('x')))).toBe('ENOENT');
        await volume.releaseOrphans(root, [file.ino]);
      });
    });

    describe('removing', () => {
      test('errors', async () => {
        await start();
        const dir = await mkdir(1, 'd');
        await create(1, 'f');
        await create(dir.ino, 'inside');
        expect(await codeOf(unlink(1, 'd'))).toBe('EISDIR');
        expect(await codeOf(volume.removeDirectory(root, 1, name('f'), closed))).toBe('ENOTDIR');
        expect(await codeOf(volume.removeDirectory(root, 1, name('d'), closed))).toBe('ENOTEMPTY');
        expect(await codeOf(volume.removeDirectory(root, 1, name('no'), closed))).toBe('ENOENT');
        expect(await codeOf(unlink(1, 'no'))).toBe('ENOENT');
      });

      test('a directory goes when it is empty', async () => {
        await start();
        const dir = await mkdir(1, 'd');
        await create(dir.ino, 'f');
        await unlink(dir.ino, 'f');
        await volume.removeDirectory(root, 1, name('d'), closed);
        expect((await stat(1)).nlink).toBe(2);
        expect(await codeOf(create(dir.ino, 'x'))).toBe('ENOENT');
        expect((await volume.statistics()).inodesUsed).toBe(1);
      });

      test('in a sticky directory only owners remove', async () => {
        await start();
        const tmp = await mkdir(1, 'tmp', 0o1777);
        await volume.setAttributes(root, tmp.ino, { mode: 0o1777 });
        await create(tmp.ino, 'f', 0o666, user(5, 5));
        await create(tmp.ino, 'g', 0o666, user(6, 6));
        const other = user(6, 6);
        expect(await codeOf(volume.unlink(other, tmp.ino, name('f'), closed))).toBe('EPERM');
        expect(await codeOf(volume.rename(other, tmp.ino, name('g'), tmp.ino, name('f'), 0, closed))).toBe(
          'EPERM',
        );
        expect(await codeOf(volume.unlink(user(5, 5), tmp.ino, name('f'), closed))).toBe('none');
      });

      test('an open file lives on as an orphan until it is released', async () => {
        await start();
        const file = await create(1, 'f');
        const gone = await volume.unlink(root, 1, name('f'), opened);
        expect(gone).toMatchObject({ nlink: 0, removed: false });
        expect(gone.attributes?.nlink).toBe(0);
        expect((await volume.setAttributes(root, file.ino, { mode: 0o600 })).nlink).toBe(0);
        expect((await service.fsck(current)).findings).toEqual([]);
        await volume.releaseOrphans(root, [file.ino]);
        expect(await codeOf(stat(file.ino))).toBe('ENOENT');
        expect(await codeOf(volume.releaseOrphans(root, [file.ino]))).toBe('none');
        expect((await volume.statistics()).inodesUsed).toBe(1);
      });

      test('an orphan that is released twice at once is counted out once', async () => {
        await start();
        const { ino } = await create(1, 'f');
        await volume.unlink(root, 1, name('f'), opened);
        await volume.releaseOrphans(root, [ino, ino]);
        expect((await volume.statistics()).inodesUsed).toBe(1);
      });

      test('an open directory lives on without a name, takes none, and goes when it is released', async () => {
        await start();
        const dir = await mkdir(1, 'd');
        const over = await mkdir(1, 'over');
        const parted = await mkdir(1, 'parted');
        expect(await volume.removeDirectory(root, 1, name('d'), opened)).toMatchObject({ removed: false });
        const renamed = await volume.rename(root, 1, name('parted'), 1, name('over'), 0, opened);
        expect(renamed.replaced).toMatchObject({ ino: over.ino, nlink: 0, removed: false });
        for (const ino of [dir.ino, over.ino]) {
          expect((await volume.setAttributes(root, ino, { mode: 0o700 })).nlink).toBe(0);
          expect(await codeOf(create(ino, 'x'))).toBe('ENOENT');
          expect(await codeOf(lookup(ino, 'x'))).toBe('ENOENT');
          expect(await codeOf(rename(1, 'over', ino, 'x'))).toBe('ENOENT');
        }
        expect((await stat(1)).nlink).toBe(3);
        expect((await service.fsck(current)).findings).toEqual([]);
        for (const ino of [dir.ino, over.ino]) {
          await volume.releaseOrphans(root, [ino]);
          expect(await codeOf(stat(ino))).toBe('ENOENT');
        }
        expect((await stat(parted.ino)).nlink).toBe(2);
        expect((await volume.statistics()).inodesUsed).toBe(2);
      });

      test('the end of a session removes its orphans and returns its reservation', async () => {
        await start({ bytesQuota: 100 * 4096 });
        const dir = await mkdir(1, 'd');
        for (const parent of [1, dir.ino]) {
          await create(parent, 'f');
          await volume.unlink(root, parent, name('f'), opened);
        }
        expect(await volume.reservePages(root, 30)).toBe(30);
        await setSession(subject.engines, SESSION, EPOCH, SessionState.Ending);
        await volume.endSession(SESSION);
        await setSession(subject.engines, SESSION, EPOCH + 1);
        expect((await volume.statistics()).inodesUsed).toBe(2);
        expect(await volume.reservePages({ ...root, epoch: EPOCH + 1 }, 100)).toBe(100);
      });
    });

    describe('rename', () => {
      test('moves a file between directories', async () => {
        await start();
        const [a, b] = [await mkdir(1, 'a'), await mkdir(1, 'b')];
        const file = await create(a.ino, 'f');
        const { moved } = await rename(a.ino, 'f', b.ino, 'g');
        expect(moved).toMatchObject({ ino: file.ino, nlink: 1 });
        expect(moved.ctime).not.toEqual(file.ctime);
        expect(await list(a.ino)).toEqual([]);
        expect(await list(b.ino)).toEqual(['g']);
        for (const dir of [a, b]) expect((await stat(dir.ino)).mtime).toEqual(moved.ctime);
      });

      test('moves a directory: parents count, its ".." follows', async () => {
        await start();
        const [a, b] = [await mkdir(1, 'a'), await mkdir(1, 'b')];
        const child = await mkdir(a.ino, 'c');
        await rename(a.ino, 'c', b.ino, 'c');
        expect((await stat(a.ino)).nlink).toBe(2);
        expect((await stat(b.ino)).nlink).toBe(3);
        expect(await volume.parentOf(root, child.ino)).toBe(b.ino);
      });

      test('replaces a file, a directory if empty', async () => {
        await start();
        const [a, b] = [await mkdir(1, 'a'), await mkdir(1, 'b')];
        const [x, y] = [await create(1, 'x'), await create(1, 'y')];
        const replaced = await rename(1, 'x', 1, 'y');
        expect(replaced.replaced).toMatchObject({ ino: y.ino, nlink: 0, removed: true });
        expect((await lookup(1, 'y')).ino).toBe(x.ino);
        await create(b.ino, 'inside');
        expect(await codeOf(rename(1, 'a', 1, 'b'))).toBe('ENOTEMPTY');
        expect((await rename(1, 'b', 1, 'a')).replaced).toMatchObject({ ino: a.ino, removed: true });
        expect((await stat(1)).nlink).toBe(3);
        expect(await codeOf(stat(a.ino))).toBe('ENOENT');
      });

      test('a replaced file that is open becomes an orphan; with another name it loses one', async () => {
        await start();
        const [x, y, z] = [await create(1, 'x'), await create(1, 'y'), await create(1, 'z')];
        await volume.link(root, z.ino, 1, name('z2'));
        const first = await volume.rename(root, 1, name('x'), 1, name('y'), 0, opened);
        expect(first.replaced).toMatchObject({ ino: y.ino, nlink: 0, removed: false });
        const second = await volume.rename(root, 1, name('y'), 1, name('z'), 0, closed);
        expect(second.replaced).toMatchObject({ ino: z.ino, nlink: 1, removed: false });
        expect(second.moved.ino).toBe(x.ino);
        await volume.releaseOrphans(root, [y.ino]);
      });

      test('errors', async () => {
        await start();
        const a = await mkdir(1, 'a');
        const b = await mkdir(a.ino, 'b');
        await create(1, 'f');
        expect(await codeOf(rename(1, 'no', 1, 'x'))).toBe('ENOENT');
        expect(await codeOf(rename(1, 'a', b.ino, 'x'))).toBe('EINVAL');
        expect(await codeOf(rename(1, 'a', a.ino, 'x'))).toBe('EINVAL');
        expect(await codeOf(rename(1, 'f', 1, 'a'))).toBe('EISDIR');
        expect(await codeOf(rename(1, 'a', 1, 'f'))).toBe('ENOTDIR');
        expect(await codeOf(rename(a.ino, 'b', 1, 'a'))).toBe('ENOTEMPTY');
        expect(await codeOf(rename(1, 'f', 1, 'a', RenameFlag.NoReplace))).toBe('EEXIST');
        expect(await codeOf(rename(1, 'f', 1, 'f', RenameFlag.NoReplace))).toBe('EEXIST');
        expect(await codeOf(rename(1, 'f', 1, 'x', RenameFlag.Exchange))).toBe('ENOENT');
        expect(await codeOf(rename(1, 'f', 1, 'x', 3))).toBe('EINVAL');
        expect(await codeOf(rename(1, 'f', 1, 'x'.repeat(256)))).toBe('ENAMETOOLONG');
        expect(await codeOf(rename(1, 'a', b.ino, 'x', RenameFlag.NoReplace))).toBe('EINVAL');
        expect(await codeOf(rename(1, 'a', a.ino, 'b', RenameFlag.Exchange))).toBe('EINVAL');
      });

      test('two names of one inode: nothing happens', async () => {
        await start();
        const file = await create(1, 'f');
        const { directory, ...linked } = await volume.link(root, file.ino, 1, name('g'));
        const renamed = await rename(1, 'f', 1, 'g');
        expect(renamed.moved).toEqual(linked);
        expect(renamed.directories).toEqual([directory]);
        expect(await list(1)).toEqual(['f', 'g']);
        expect((await rename(1, 'f', 1, 'f')).moved.nlink).toBe(2);
      });

      test('exchange of a directory with a file in another directory', async () => {
        await start();
        const [a, b] = [await mkdir(1, 'a'), await mkdir(1, 'b')];
        const dir = await mkdir(a.ino, 'd');
        await create(dir.ino, 'inside');
        const file = await create(b.ino, 'f');
        const swapped = await rename(a.ino, 'd', b.ino, 'f', RenameFlag.Exchange);
        expect(swapped.moved.ino).toBe(dir.ino);
        expect(swapped.exchanged?.ino).toBe(file.ino);
        expect((await lookup(a.ino, 'd')).ino).toBe(file.ino);
        expect((await lookup(b.ino, 'f')).ino).toBe(dir.ino);
        expect((await stat(a.ino)).nlink).toBe(2);
        expect((await stat(b.ino)).nlink).toBe(3);
        expect(await volume.parentOf(root, dir.ino)).toBe(b.ino);
      });
    });

    describe('attributes', () => {
      test('chmod, chown and times move ctime', async () => {
        await start();
        const file = await create(1, 'f');
        const changed = await volume.setAttributes(root, file.ino, { mode: 0o4711 });
        expect(changed.mode).toBe(REG | 0o4711);
        expect(changed.ctime).not.toEqual(file.ctime);
        expect(changed.mtime).toEqual(file.mtime);
        const before = { sec: -5, nsec: 999_999_999 };
        const timed = await volume.setAttributes(root, file.ino, { atime: before, mtime: 'now' });
        expect(timed.atime).toEqual(before);
        expect(timed.mtime).toEqual(timed.ctime);
        expect(await codeOf(volume.setAttributes(root, file.ino, { atime: { sec: 0, nsec: 1e9 } }))).toBe(
          'EINVAL',
        );
        expect((await stat(file.ino)).atime).toEqual(before);
      });

      test('chown takes suid, and sgid where the group may execute; not from directories', async () => {
        await start();
        const file = await create(1, 'f');
        await volume.setAttributes(root, file.ino, { mode: 0o6755 });
        expect((await volume.setAttributes(root, file.ino, { uid: 9 })).mode).toBe(REG | 0o755);
        await volume.setAttributes(root, file.ino, { mode: 0o6745 });
        expect((await volume.setAttributes(root, file.ino, { gid: 9 })).mode).toBe(REG | 0o2745);
        await volume.setAttributes(root, file.ino, { mode: 0o6755 });
        expect((await volume.setAttributes(root, file.ino, {})).mode).toBe(REG | 0o755);
        const dir = await mkdir(1, 'd');
        await volume.setAttributes(root, dir.ino, { mode: 0o6755 });
        expect((await volume.setAttributes(root, dir.ino, { uid: 9, gid: 9 })).mode).toBe(DIR | 0o6755);
      });

      test('killPrivileges clears the set-ID bits and the capability', async () => {
        await start();
        const file = await create(1, 'f');
        await volume.setAttributes(root, file.ino, { mode: 0o6755 });
        const capable = await volume.setXattr(root, file.ino, name('security.capability'), name('x'), 0);
        expect(capable.flags & InodeFlag.HasCapability).not.toBe(0);
        const killed = await volume.setAttributes(root, file.ino, { killPrivileges: true });
        expect(killed).toMatchObject({ mode: REG | 0o755, flags: 0 });
        expect(await codeOf(volume.getXattr(root, file.ino, name('security.capability')))).toBe('ENODATA');
      });

      test('sgid without execution by the group is taken by those who are not known to be in it', async () => {
        await start();
        const file = await create(1, 'f');
        await volume.setAttributes(root, file.ino, { gid: 99 });
        for (const [writer, mode] of [
          [root, 0o2644],
          [user(5, 99), 0o2644],
          [user(5, 6, [99]), 0o2644],
          [user(5, 6), 0o644],
        ] as const) {
          await volume.setAttributes(root, file.ino, { mode: 0o2644 });
          const killed = await volume.setAttributes(writer, file.ino, { killPrivileges: true });
          expect(killed.mode).toBe(REG | mode);
        }
      });

      test('a caller outside the group loses sgid on chmod', async () => {
        await start();
        const file = await create(1, 'f', 0o644, user(5, 6));
        await volume.setAttributes(root, file.ino, { gid: 99 });
        expect((await volume.setAttributes(user(5, 6), file.ino, { mode: 0o2755 })).mode).toBe(REG | 0o755);
        expect((await volume.setAttributes(user(5, 6, [99]), file.ino, { mode: 0o2755 })).mode).toBe(
          REG | 0o2755,
        );
      });

      test('size: grows freely, shrinks to nothing, moves mtime', async () => {
        await start();
        const file = await create(1, 'f');
        const grown = await volume.setAttributes(root, file.ino, { size: 3 * MIB + 5 });
        expect(grown).toMatchObject({ size: 3 * MIB + 5, pages: 0 });
        expect(grown.mtime).toEqual(grown.ctime);
        expect(grown.version).toBeGreaterThan(file.version);
        const stripe = { offset: 0, length: MIB, id: 1, version: 1, node: 1 };
        await volume.publish(root, [publication(grown, 3, [stripe])]);
        expect((await volume.statistics()).bytesUsed).toBe(3 * 4096);
        expect(await codeOf(volume.setAttributes(root, file.ino, { size: 100 }))).toBe('EINVAL');
        const empty = await volume.setAttributes(root, file.ino, { size: 0 });
        expect(empty).toMatchObject({ size: 0, pages: 0 });
        expect((await volume.statistics()).bytesUsed).toBe(0);
        expect(await volume.takeReleased(10)).toEqual([{ id: 1, version: 1, node: 1 }]);
        expect(await codeOf(volume.setAttributes(root, file.ino, { size: 2 ** 52 + 4096 }))).toBe('EFBIG');
        expect(await codeOf(volume.setAttributes(root, 1, { size: 0 }))).toBe('EISDIR');
      });
    });

    describe('listing', () => {
      test('pages neither skip nor repeat what stays, whatever comes and goes', async () => {
        await start();
        const dir = await mkdir(1, 'd');
        for (let n = 0; n < 60; n++) await create(dir.ino, `stay-${n}`);
        for (let n = 0; n < 30; n++) await create(dir.ino, `go-${n}`);
        const seen: string[] = [];
        let cookie = 0n;
        for (let page = 0; ; page++) {
          const entries = await volume.readDirectory(root, dir.ino, cookie, 7, page % 2 === 0);
          if (entries.length === 0) break;
          for (const entry of entries) {
            expect(entry.cookie).toBeGreaterThan(cookie);
            cookie = entry.cookie;
            seen.push(entry.name.toString());
          }
          await create(dir.ino, `new-${page}`);
          if (page < 30) await unlink(dir.ino, `go-${page}`);
        }
        const stayed = seen.filter((text) => text.startsWith('stay-'));
        expect(stayed.length).toBe(60);
        expect(new Set(seen).size).toBe(seen.length);
      });

      test('plus brings attributes, also of directories on other nodes', async () => {
        await start();
        for (let n = 0; n < 8; n++) await mkdir(1, `d${n}`);
        const { directory, ...file } = await create(1, 'f');
        expect(directory.nlink).toBe(10);
        const entries = await volume.readDirectory(root, 1, 0n, 100, true);
        expect(entries.length).toBe(9);
        for (const entry of entries) expect(entry.attributes?.ino).toBe(entry.ino);
        expect(entries.find((entry) => entry.ino === file.ino)?.attributes).toEqual(file);
        expect(await codeOf(volume.readDirectory(root, file.ino, 0n, 10, false))).toBe('ENOTDIR');
      });

      test('names whose hashes collide', async () => {
        await start({ nameHashBits: 3 });
        const dir = await mkdir(1, 'd');
        const expected = new Set<string>();
        for (let n = 0; n < 40; n++) {
          await create(dir.ino, `n${n}`);
          expected.add(`n${n}`);
        }
        for (let n = 0; n < 40; n += 3) {
          await unlink(dir.ino, `n${n}`);
          expected.delete(`n${n}`);
        }
        for (let n = 1; n < 40; n += 6) {
          if (!expected.has(`n${n}`)) continue;
          await rename(dir.ino, `n${n}`, dir.ino, `m${n}`);
          expected.delete(`n${n}`);
          expected.add(`m${n}`);
        }
        expect(await list(dir.ino)).toEqual([...expected].sort());
        for (const text of expected) expect(await codeOf(lookup(dir.ino, text))).toBe('none');
        for (const text of expected) await unlink(dir.ino, text);
        expect(await list(dir.ino)).toEqual([]);
        await volume.removeDirectory(root, 1, name('d'), closed);
      });
    });

    describe('extended attributes', () => {
      test('modes, list, removal, flags', async () => {
        await start();
        const file = await create(1, 'f');
        const set = (text: string, value: string, mode = XattrMode.Upsert): Promise<Attributes> =>
          volume.setXattr(root, file.ino, name(text), name(value), mode);
        expect(await codeOf(set('user.a', '1', XattrMode.Replace))).toBe('ENODATA');
        const first = await set('user.a', '1', XattrMode.Create);
        expect(first.flags).toBe(InodeFlag.HasXattr);
        expect(first.ctime).not.toEqual(file.ctime);
        expect(await codeOf(set('user.a', '2', XattrMode.Create))).toBe('EEXIST');
        await set('user.a', '2', XattrMode.Replace);
        await set('user.b', '');
        expect((await volume.getXattr(root, file.ino, name('user.a'))).toString()).toBe('2');
        expect((await volume.getXattr(root, file.ino, name('user.b'))).length).toBe(0);
        expect((await volume.listXattr(root, file.ino)).map(String)).toEqual(['user.a', 'user.b']);
        await set('trusted.c', '');
        const somebody = { ...root, uid: 1000, gid: 1000 };
        expect((await volume.listXattr(somebody, file.ino)).map(String)).toEqual(['user.a', 'user.b']);
        expect((await volume.listXattr(root, file.ino)).map(String)).toContain('trusted.c');
        await volume.removeXattr(root, file.ino, name('trusted.c'));
        await volume.removeXattr(root, file.ino, name('user.a'));
        expect((await volume.removeXattr(root, file.ino, name('user.b'))).flags).toBe(0);
        expect(await codeOf(volume.removeXattr(root, file.ino, name('user.b')))).toBe('ENODATA');
        expect(await codeOf(volume.getXattr(root, file.ino, name('user.a')))).toBe('ENODATA');
      });

      test('limits', async () => {
        await start();
        const { ino } = await create(1, 'f');
        const set = (text: Buffer, size: number): Promise<unknown> =>
          volume.setXattr(root, ino, text, Buffer.alloc(size), 0);
        expect(await codeOf(set(Buffer.alloc(256, 'a'), 1))).toBe('ERANGE');
        expect(await codeOf(set(Buffer.alloc(0), 1))).toBe('ERANGE');
        expect(await codeOf(set(name('user.big'), 65_537))).toBe('E2BIG');
        expect(await codeOf(set(name('user.big'), 65_536))).toBe('none');
        expect(await codeOf(set(name('system.unknown'), 1))).toBe('EOPNOTSUPP');
        const long = (n: number): Buffer => Buffer.from(`user.${n}`.padEnd(255, 'x'));
        for (let n = 0; n < 255; n++) await set(long(n), 1);
        expect(await codeOf(set(long(255), 1))).toBe('ENOSPC');
        await unlink(1, 'f');
      });
    });

    describe('access control lists', () => {
      test('an access ACL sets the mode, and chmod sets its mask', async () => {
        await start();
        const { ino } = await create(1, 'f', 0o640);
        const list = acl([U, 6], [USER, 7, 42], [G, 4], [MASK, 6], [O, 1]);
        const set = await volume.setXattr(root, ino, ACCESS, list, 0);
        expect(set.mode).toBe(REG | 0o661);
        expect(set.flags).toBe(InodeFlag.HasXattr | InodeFlag.HasAccessAcl);
        await volume.setAttributes(root, ino, { mode: 0o705 });
        expect(await volume.getXattr(root, ino, ACCESS)).toEqual(
          acl([U, 7], [USER, 7, 42], [G, 4], [MASK, 0], [O, 5]),
        );
        const minimal = await volume.setXattr(root, ino, ACCESS, acl([U, 6], [G, 4], [O, 0]), 0);
        expect(minimal).toMatchObject({ mode: REG | 0o640, flags: 0 });
        expect(await codeOf(volume.getXattr(root, ino, ACCESS))).toBe('ENODATA');
      });

      test('the kernel may ask for sgid to go with it', async () => {
        await start();
        const { ino } = await create(1, 'f');
        await volume.setAttributes(root, ino, { mode: 0o2755 });
        const list = acl([U, 7], [G, 5], [O, 5]);
        expect((await volume.setXattr(root, ino, ACCESS, list, 0, true)).mode).toBe(REG | 0o755);
      });

      test('what is not a list', async () => {
        await start();
        const { ino } = await create(1, 'f');
        const link = await volume.makeSymlink(root, 1, name('l'), name('t'));
        const set = (value: Buffer, to = ino): Promise<string> =>
          codeOf(volume.setXattr(root, to, ACCESS, value, 0));
        expect(await set(name('abc'))).toBe('EINVAL');
        expect(await set(acl([U, 6], [USER, 7, 42], [G, 4], [O, 1]))).toBe('EINVAL');
        expect(await set(acl([G, 4], [U, 6], [O, 1]))).toBe('EINVAL');
        expect(await set(acl([U, 6], [G, 4]))).toBe('EINVAL');
        expect(await set(acl([U, 9], [G, 4], [O, 1]))).toBe('EINVAL');
        expect(await set(acl([U, 6], [G, 4], [O, 1]), link.ino)).toBe('EOPNOTSUPP');
        expect(await codeOf(volume.setXattr(root, ino, DEFAULT, acl([U, 6], [G, 4], [O, 1]), 0))).toBe(
          'EACCES',
        );
      });

      test('a default ACL is inherited instead of the umask', async () => {
        await start();
        const dir = await mkdir(1, 'd');
        const list = acl([U, 7], [USER, 7, 42], [G, 7], [MASK, 7], [O, 5]);
        const set = await volume.setXattr(root, dir.ino, DEFAULT, list, 0);
        expect(set.flags).toBe(InodeFlag.HasXattr | InodeFlag.HasDefaultAcl);
        const file = await create(dir.ino, 'f', 0o664, user(5, 5));
        expect(file.mode).toBe(REG | 0o664);
        expect(await volume.getXattr(root, file.ino, ACCESS)).toEqual(
          acl([U, 6], [USER, 7, 42], [G, 7], [MASK, 6], [O, 4]),
        );
        const child = await mkdir(dir.ino, 'c', 0o750);
        expect(child.mode).toBe(DIR | 0o750);
        expect(await volume.getXattr(root, child.ino, DEFAULT)).toEqual(list);
        const link = await volume.makeSymlink(root, dir.ino, name('l'), name('t'));
        expect(link.flags).toBe(0);
        await volume.setXattr(root, child.ino, DEFAULT, acl([U, 7], [G, 5], [O, 0]), 0);
        const plain = await create(child.ino, 'g', 0o666, user(5, 5));
        expect(plain).toMatchObject({ mode: REG | 0o640, flags: 0 });
        expect((await volume.removeXattr(root, child.ino, DEFAULT)).flags).toBe(
          InodeFlag.HasXattr | InodeFlag.HasAccessAcl,
        );
      });
    });

    describe('publish', () => {
      const stripe = (offset: number, id: number, version = 1, length = MIB) => ({
        offset,
        length,
        id,
        version,
        node: 1,
      });

      test('puts sizes, times and stripes in place; old versions are released', async () => {
        await start();
        const file = await create(1, 'f');
        const first = publication(file, 700, [
          stripe(0, 10),
          stripe(MIB, 11),
          stripe(2 * MIB, 12, 1, 2 * MIB),
        ]);
        const [result] = await volume.publish(root, [first]);
        expect(result).toEqual({ ino: file.ino, version: 1 });
        const published = await stat(file.ino);
        expect(published).toMatchObject({ size: 700 * 4096, pages: 700, mtime: { sec: 7, nsec: 1 } });
        expect(published.ctime).toEqual(file.ctime);
        expect((await volume.stripes(root, file.ino, MIB + 5, 1)).map(({ id }) => id)).toEqual([11]);
        expect((await volume.stripes(root, file.ino, 3 * MIB, MIB)).map(({ id }) => id)).toEqual([12]);
        expect((await volume.stripes(root, file.ino, 0, 2 ** 52)).map(({ id }) => id)).toEqual([10, 11, 12]);
        expect(await volume.stripes(root, file.ino, 4 * MIB, MIB)).toEqual([]);
        expect(await volume.takeReleased(10)).toEqual([]);
        const second = publication(published, 300, [stripe(0, 10, 2)], [12]);
        expect((await volume.publish(root, [second]))[0]).toEqual({ ino: file.ino, version: 2 });
        const released = await volume.takeReleased(10);
        expect(released).toEqual([
          { id: 10, version: 1, node: 1 },
          { id: 12, version: 1, node: 1 },
        ]);
        await volume.confirmReleased(released.slice(0, 1));
        expect((await volume.takeReleased(10)).map(({ id }) => id)).toEqual([12]);
        expect((await volume.statistics()).bytesUsed).toBe(300 * 4096);
        await unlink(1, 'f');
        expect((await volume.takeReleased(10)).map(({ id, version }) => [id, version])).toEqual([
          [10, 2],
          [11, 1],
          [12, 1],
        ]);
        expect((await volume.statistics()).bytesUsed).toBe(0);
      });

      test('each file of a batch on its own condition, across nodes', async () => {
        await start();
        const dirs = await Promise.all(['a', 'b', 'c', 'd'].map((text) => mkdir(1, text)));
        const files = await Promise.all(dirs.map((dir) => create(dir.ino, 'f')));
        await unlink(dirs[1]!.ino, 'f');
        await volume.publish(root, [publication(files[2]!, 1, [stripe(0, 5)])]);
        const batch = files.map((file, n) => publication(file, 1, [stripe(0, 20 + n)]));
        const results = await volume.publish(root, batch);
        expect(results.map(({ error }) => error)).toEqual([undefined, 'ENOENT', 'ESTALE', undefined]);
        expect(results.map(({ ino }) => ino)).toEqual(files.map(({ ino }) => ino));
      });

      test('a file of very many stripes is removed at once and released in batches', async () => {
        await start();
        const file = await create(1, 'f');
        const stripes = Array.from({ length: 700 }, (_, n) => stripe(n * MIB, 1000 + n));
        await volume.publish(root, [publication(file, 700, stripes)]);
        await unlink(1, 'f');
        expect(await codeOf(stat(file.ino))).toBe('ENOENT');
        await volume.sweep();
        expect((await volume.takeReleased(10_000)).length).toBe(700);
        expect((await volume.statistics()).bytesUsed).toBe(0);
      });

      test('stripe ids are fresh', async () => {
        await start();
        const first = await volume.allocateStripeIds(root, 10);
        const second = await volume.allocateStripeIds(root, 5000);
        const third = await volume.allocateStripeIds(root, 1);
        expect(second).toBeGreaterThanOrEqual(first + 10);
        expect(third).toBeGreaterThanOrEqual(second + 5000);
      });
    });

    describe('quota', () => {
      test('inodes: the last one is granted from whichever node has it, and none beyond', async () => {
        await start({ inodesQuota: 12 });
        const dirs: Attributes[] = [];
        for (let n = 0; n < 4; n++) dirs.push(await mkdir(1, `d${n}`));
        for (let n = 0; n < 7; n++) await create(dirs[n % 4]!.ino, `f${n}`);
        for (const dir of dirs) expect(await codeOf(create(dir.ino, 'more'))).toBe('EDQUOT');
        expect(await volume.statistics()).toMatchObject({ inodesTotal: 12, inodesUsed: 12 });
        await unlink(dirs[0]!.ino, 'f0');
        expect(await codeOf(create(dirs[3]!.ino, 'again'))).toBe('none');
        expect(await codeOf(create(dirs[0]!.ino, 'more'))).toBe('EDQUOT');
      });

      test('reserved pages turn into used ones, also on other nodes, and a publish without is refused', async () => {
        await start({ bytesQuota: 100 * 4096 });
        expect(await volume.reservePages(root, 90)).toBe(90);
        expect(await volume.reservePages(root, 20)).toBe(10);
        expect(await volume.reservePages(root, 1)).toBe(0);
        const dirs = [await mkdir(1, 'a'), await mkdir(1, 'b'), await mkdir(1, 'c')];
        const files = [];
        for (const dir of dirs) files.push(await create(dir.ino, 'f'));
        const batch = files.map((file, n) =>
          publication(file, 30, [{ offset: 0, length: MIB, id: n + 1, version: 1, node: 1 }]),
        );
        expect((await volume.publish(root, batch)).map(({ error }) => error)).toEqual([
          undefined,
          undefined,
          undefined,
        ]);
        await volume.returnReservation(root, 10);
        expect(await volume.statistics()).toMatchObject({ bytesTotal: 100 * 4096, bytesUsed: 90 * 4096 });
        const last = await create(dirs[0]!.ino, 'g');
        expect((await volume.publish(root, [publication(last, 11, [])]))[0]?.error).toBe('EDQUOT');
        expect((await volume.publish(root, [publication(last, 10, [])]))[0]?.error).toBe(undefined);
      });
    });

    describe('fencing', () => {
      test('a superseded or ended session changes nothing', async () => {
        await start();
        const file = await create(1, 'f');
        await setSession(subject.engines, SESSION, EPOCH + 1);
        expect(await codeOf(create(1, 'g'))).toBe('ESTALE');
        expect(await codeOf(mkdir(1, 'g'))).toBe('ESTALE');
        expect(await codeOf(unlink(1, 'f'))).toBe('ESTALE');
        expect(await codeOf(rename(1, 'f', 1, 'g'))).toBe('ESTALE');
        expect(await codeOf(volume.setAttributes(root, file.ino, { mode: 0 }))).toBe('ESTALE');
        expect(await codeOf(volume.publish(root, [publication(file, 1, [])]))).toBe('ESTALE');
        expect(await codeOf(volume.reservePages(root, 1))).toBe('ESTALE');
        await setSession(subject.engines, SESSION, EPOCH, SessionState.Ending);
        expect(await codeOf(create(1, 'g'))).toBe('ESTALE');
        expect(await codeOf(create(1, 'g', 0o644, { ...root, session: 12345 }))).toBe('ESTALE');
        expect(await list(1)).toEqual(['f']);
      });
    });

    describe('concurrency', () => {
      test('many creates in one directory at once', async () => {
        await start();
        const dir = await mkdir(1, 'd');
        const files = await Promise.all(Array.from({ length: 200 }, (_, n) => create(dir.ino, `f${n}`)));
        expect(new Set(files.map(({ ino }) => ino)).size).toBe(200);
        expect((await list(dir.ino)).length).toBe(200);
      });

      test('create races with rmdir of the directory', async () => {
        await start();
        for (let n = 0; n < 20; n++) {
          const dir = await mkdir(1, `d${n}`);
          const outcome = await Promise.all([
            codeOf(create(dir.ino, 'f')),
            codeOf(volume.removeDirectory(root, 1, name(`d${n}`), closed)),
            codeOf(mkdir(dir.ino, 'g')),
          ]);
          if (outcome[1] === 'none') expect([outcome[0], outcome[2]]).toEqual(['ENOENT', 'ENOENT']);
          else expect(outcome[1]).toBe('ENOTEMPTY');
        }
      });

      test('two renames that would make a cycle', async () => {
        await start();
        for (let n = 0; n < 20; n++) {
          const [a, b] = [await mkdir(1, `a${n}`), await mkdir(1, `b${n}`)];
          const outcome = await Promise.all([
            codeOf(rename(1, `a${n}`, b.ino, 'in')),
            codeOf(rename(1, `b${n}`, a.ino, 'in')),
          ]);
          expect(outcome.filter((code) => code === 'none').length).toBe(1);
        }
      });

      test('link races with unlink of the last name', async () => {
        await start();
        const other = await mkdir(1, 'other');
        for (let n = 0; n < 20; n++) {
          const file = await create(1, `f${n}`);
          const [linked, gone] = await Promise.all([
            codeOf(volume.link(root, file.ino, other.ino, name(`l${n}`))),
            codeOf(unlink(1, `f${n}`)),
          ]);
          expect(gone).toBe('none');
          expect(['none', 'ENOENT']).toContain(linked);
          expect(await codeOf(lookup(other.ino, `l${n}`))).toBe(linked);
        }
      });
    });
  });
}
