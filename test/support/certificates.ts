// An authority and certificates that it signs, made by openssl for one test.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import type { TlsFiles } from '../../src/lease/grpc/credentials.js';
import type { WallClock } from './wall-clock.js';

export interface CertificateOptions {
  /** An authority made before; default: 'ca'. */
  readonly signer?: string;
  /** As in subjectAltName; default: the loopback address. */
  readonly names?: string;
  /** From now; negative: it ended so long ago. */
  readonly days?: number;
  /** Whom its holder trusts; default: 'ca'. */
  readonly trusts?: string;
}

const CURVE = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

export class Certificates {
  /** `directory` is the caller's to remove. `clock`: certificates begin now by this one. */
  constructor(
    private readonly directory: string,
    private readonly clock?: WallClock,
  ) {
    this.authority('ca');
  }

  authority(name: string): void {
    this.#openssl(
      ...['req', '-x509', ...CURVE, '-days', '2', '-subj', `/CN=${name}`],
      ...['-keyout', `${name}.key`, '-out', `${name}.pem`],
    );
  }

  make(name: string, options: CertificateOptions = {}): TlsFiles {
    const { signer = 'ca', names = 'IP:127.0.0.1', days = 2, trusts = 'ca' } = options;
    this.#openssl(
      ...['req', ...CURVE, '-subj', `/CN=${name}`, '-addext', `subjectAltName=${names}`],
      ...['-keyout', `${name}.key`, '-out', `${name}.csr`],
    );
    this.#openssl(
      ...['x509', '-req', '-in', `${name}.csr`, '-CA', `${signer}.pem`, '-CAkey', `${signer}.key`],
      ...['-CAcreateserial', '-days', String(days), '-copy_extensions', 'copy', '-out', `${name}.pem`],
    );
    const at = (file: string) => join(this.directory, file);
    return { ca: at(`${trusts}.pem`), certificate: at(`${name}.pem`), key: at(`${name}.key`) };
  }

  #openssl(...argv: string[]): void {
    const env = { ...process.env, ...this.clock?.environment };
    execFileSync('openssl', argv, { cwd: this.directory, stdio: 'pipe', env });
  }
}
