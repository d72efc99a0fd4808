import { expect, test } from 'vitest';
import { closed, codeOf, makeBench, memoryEngines, name, REG, root } from './support.js';

for (const nodes of [1, 3]) {
  test(`a file is made, found, renamed and removed on ${nodes} node(s)`, async () => {
    const { volume } = await makeBench(memoryEngines(nodes));
    const dir = await volume.makeDirectory(root, 1, name('d'), 0o777);
    const file = await volume.makeNode(root, dir.ino, name('f'), REG | 0o666, 0);
    expect((await volume.lookup(root, dir.ino, name('f'))).ino).toBe(file.ino);
    await volume.rename(root, dir.ino, name('f'), 1, name('g'), 0, closed);
    expect(await codeOf(volume.lookup(root, dir.ino, name('f')))).toBe('ENOENT');
    expect((await volume.readDirectory(root, 1, 0n, 10, true)).map((e) => e.name.toString()).sort()).toEqual([
      'd',
      'g',
    ]);
    expect((await volume.unlink(root, 1, name('g'), closed)).removed).toBe(true);
    await volume.removeDirectory(root, 1, name('d'));
    expect((await volume.statistics()).inodesUsed).toBe(1);
  });
}
