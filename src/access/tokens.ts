// Tenant tokens. A token is `penstock_<identifier>_<secret>`; the secret is 256 random bits that are shown once, and the
// service keeps a salted SHA-256 of it. A slow hash (scrypt) guards secrets that people choose; against 256 random bits
// it would only add latency. Comparison takes constant time, also for an identifier that does not exist.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { KvEngine } from '../kv/engine.js';
import { MetadataError } from '../metadata/contract.js';
import { accessKey, accessRange } from '../metadata/keys.js';

export interface TokenGrant {
  readonly id: string;
  readonly tenant: string;
  /** Names of volumes; `*` is every volume of the tenant (those named `<tenant>/...`). */
  readonly volumes: readonly string[];
}

export interface TokenVerifier {
  /** Undefined when the token is malformed, unknown, revoked or wrong; it does not say which. */
  verify(token: string): Promise<TokenGrant | undefined>;
}

interface TokenRecord extends TokenGrant {
  readonly salt: string;
  readonly hash: string;
}

const TOKEN = /^penstock_([0-9a-f]{16})_([A-Za-z0-9_-]{43})$/;
const KEY_LETTER = 'K';

export class TokenTable implements TokenVerifier {
  readonly #engine: KvEngine;

  constructor(engine: KvEngine) {
    this.#engine = engine;
  }

  /** The only time that the token is seen. */
  async issue(tenant: string, volumes: readonly string[]): Promise<string> {
    if (tenant === '' || volumes.length === 0) {
      throw new MetadataError('EINVAL', 'a token needs a tenant and at least one volume');
    }
    const id = randomBytes(8).toString('hex');
    const secret = randomBytes(32).toString('base64url');
    const salt = randomBytes(16).toString('hex');
    const record: TokenRecord = { id, tenant, volumes, salt, hash: digest(salt, secret).toString('hex') };
    await this.#engine.transact((txn) => txn.put(tokenKey(id), Buffer.from(JSON.stringify(record))));
    await this.#engine.sync();
    return `penstock_${id}_${secret}`;
  }

  async revoke(id: string): Promise<boolean> {
    const known = await this.#engine.transact(async (txn) => {
      const found = await txn.get(tokenKey(id));
      txn.delete(tokenKey(id));
      return found !== undefined;
    });
    await this.#engine.sync();
    return known;
  }

  async list(): Promise<TokenGrant[]> {
    const found = await this.#engine.transact((txn) => txn.scan(accessRange(Buffer.from(KEY_LETTER))));
    return found.map(({ value }) => grantOf(parse(value)));
  }

  async verify(token: string): Promise<TokenGrant | undefined> {
    const match = TOKEN.exec(token);
    if (match === null) return undefined;
    const value = await this.#engine.transact((txn) => txn.get(tokenKey(match[1]!)));
    const record = value === undefined ? undefined : parse(value);
    const expected = record === undefined ? NO_HASH : Buffer.from(record.hash, 'hex');
    const equal = timingSafeEqual(expected, digest(record?.salt ?? NO_SALT, match[2]!));
    return equal && record !== undefined ? grantOf(record) : undefined;
  }
}

const NO_SALT = '0'.repeat(32);
const NO_HASH = Buffer.alloc(32);

const tokenKey = (id: string): Buffer => accessKey(Buffer.from(`${KEY_LETTER}${id}`));
const grantOf = ({ id, tenant, volumes }: TokenRecord): TokenGrant => ({ id, tenant, volumes });
const parse = (value: Buffer): TokenRecord => JSON.parse(value.toString()) as TokenRecord;
const digest = (salt: string, secret: string): Buffer =>
  createHash('sha256').update(Buffer.from(salt, 'hex')).update(secret).digest();
