// What a script that looks at packets works with; the ring itself is drawn in bindings/ring.ts.
export { type PacketHandler, RingPacket, Verdict } from '../../bindings/ring.js';
