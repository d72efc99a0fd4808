// A process of its own that mounts an empty directory with the raw native session, answers nothing but the root's
// attributes, and says when it is ready: something for a test to kill, or that exits by itself after a while.
import { createRequire } from 'node:module';
import { join } from 'node:path';

const { FuseSession, MemoryFileIo, fuseLayout } = createRequire(import.meta.url)(
  join(import.meta.dirname, '../../build/Release/penstock.node'),
);
const session = new FuseSession({
  mountpoint: process.argv[2],
  source: 'penstock',
  mountOptions: '',
  allowOther: true,
  forceFusermount: false,
  maxBackground: 64,
  passthrough: false,
  workers: 2,
  ioUring: process.env.PENSTOCK_TEST_IO_URING ?? 'off',
  ioUringDepth: 0,
  inodeCapacity: 16,
  dentryCapacity: 16,
  haltPoll: true,
  exclusive: false,
  fileIo: new MemoryFileIo(1 << 20, false).fileIo(),
});
await session.mount();

const GETATTR = 3;
const memory = new SharedArrayBuffer(fuseLayout['UpcallRing.data'] + (1 << 18));
const ring = new DataView(memory);
const reply = new Uint8Array(4096);
const attributes = new DataView(reply.buffer, fuseLayout['AttrOut.attr']);
attributes.setUint32(fuseLayout['Attr.ino'], 1, true);
attributes.setUint32(fuseLayout['Attr.mode'], 0o040755, true);
attributes.setUint32(fuseLayout['Attr.nlink'], 2, true);
let tail = 0;

function drain() {
  while (ring.getUint32(fuseLayout['UpcallRing.head'], true) !== tail) {
    const record = fuseLayout['UpcallRing.data'] + tail;
    const slot = ring.getUint32(record + fuseLayout['UpcallRecord.slot'], true);
    const kind = ring.getUint32(record + fuseLayout['UpcallRecord.kind'], true);
    if (kind === GETATTR) session.reply(slot, 0, fuseLayout['sizeof AttrOut'], 0, 0, false);
    tail += ring.getUint32(record, true);
    ring.setUint32(fuseLayout['UpcallRing.tail'], tail, true);
  }
}

session.start(new Uint8Array(memory), reply, drain);
setInterval(drain, 10);
process.stdout.write('ready\n');
if (process.argv[3] !== undefined) setTimeout(() => process.exit(3), Number(process.argv[3]));
