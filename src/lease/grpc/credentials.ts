// Where plain text is allowed and where it is not: a unix socket or a loopback address may be plain, everything else needs TLS, and
// both sides then show a certificate.
import { readFileSync } from 'node:fs';
import type { ChannelCredentials, ServerCredentials } from '@grpc/grpc-js';
import { LeaseError } from '../errors.js';
import { grpc } from './library.js';

/** PEM files. */
export interface TlsFiles {
  /** Who may sign the other side's certificate. */
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

export function isLocal(address: string): boolean {
  if (address.startsWith('unix:')) return true;
  const host = address.slice(0, address.lastIndexOf(':'));
  return host === 'localhost' || host === '[::1]' || /^127(\.\d{1,3}){3}$/.test(host);
}

export function serverCredentials(address: string, tls: TlsFiles | undefined): ServerCredentials {
  if (tls === undefined) {
    requireLocal(address);
    return grpc().ServerCredentials.createInsecure();
  }
  const { ca, cert_chain, private_key } = readTls(tls);
  // The client must show a certificate that this authority signed.
  return grpc().ServerCredentials.createSsl(ca, [{ cert_chain, private_key }], true);
}

export function clientCredentials(address: string, tls: TlsFiles | undefined): ChannelCredentials {
  if (tls === undefined || address.startsWith('unix:')) {
    requireLocal(address);
    return grpc().credentials.createInsecure();
  }
  const { ca, cert_chain, private_key } = readTls(tls);
  return grpc().credentials.createSsl(ca, private_key, cert_chain);
}

function requireLocal(address: string): void {
  if (isLocal(address)) return;
  throw new LeaseError('BAD_REQUEST', `${address} is not on this host: give ca, certificate and key for TLS`);
}

function readTls(tls: TlsFiles): { ca: Buffer; cert_chain: Buffer; private_key: Buffer } {
  const read = (name: keyof TlsFiles) => {
    try {
      return readFileSync(tls[name]);
    } catch (error) {
      throw new LeaseError(
        'BAD_REQUEST',
        `tls.${name}: cannot read ${tls[name]}: ${(error as Error).message}`,
        {
          cause: error,
        },
      );
    }
  };
  return { ca: read('ca'), cert_chain: read('certificate'), private_key: read('key') };
}
