// What a thread of the bulk pool does: one request over shared memory, one small answer. Plain JavaScript, since a worker
// thread starts from a file that Node can run as it is, from the sources as well as from the compiled package.
import { createCipheriv, createDecipheriv, createHash } from 'node:crypto';
import { constants, deflateRawSync, inflateRawSync } from 'node:zlib';

const CIPHER = 'aes-256-gcm';
const TAG_BYTES = 16;

/** @param {{ memory: SharedArrayBuffer, offset: number, length: number }} range */
const view = ({ memory, offset, length }) => new Uint8Array(memory, offset, length);

/**
 * zlib and the ciphers allocate their own results: copied into the target, or undefined if they do not fit.
 * @param {Uint8Array} result
 */
function deliver(result, target) {
  if (result.length > target.length) return undefined;
  view(target).set(result);
  return result.length;
}

const operations = {
  hash: ({ ranges }) =>
    ranges.map((range) => new Uint8Array(createHash('sha256').update(view(range)).digest())),

  compress({ source, target, level }) {
    return deliver(deflateRawSync(view(source), { level: level ?? constants.Z_BEST_SPEED }), target);
  },

  decompress({ source, target }) {
    return deliver(inflateRawSync(view(source), { maxOutputLength: Math.max(1, target.length) }), target);
  },

  encrypt({ source, target, key, nonce, context }) {
    const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(context);
    view(target).set(cipher.update(view(source)));
    cipher.final();
    return new Uint8Array(cipher.getAuthTag());
  },

  decrypt({ source, target, key, nonce, context, tag }) {
    const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(context);
    decipher.setAuthTag(tag);
    const clear = decipher.update(view(source));
    decipher.final(); // Throws before anything unverified is handed over.
    view(target).set(clear);
  },
};

/** @param {{ operation: keyof typeof operations }} request */
export default (request) => operations[request.operation](request);
