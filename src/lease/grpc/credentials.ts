// Where plain text is allowed and where it is not: a unix socket or a loopback address may be plain, everything else needs TLS, and
// both sides then show a certificate.
import { createPrivateKey, X509Certificate } from 'node:crypto';
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
  const [ca, certificate, key] = [read('ca'), read('certificate'), read('key')];
  checkCertificate(tls, certificate, key);
  return { ca, cert_chain: certificate, private_key: key };
}

/** What the other side would answer by hanging up is said here, by name. */
function checkCertificate(files: TlsFiles, certificate: Buffer, key: Buffer): void {
  const own = parse(
    `tls.certificate: ${files.certificate} is no certificate`,
    () => new X509Certificate(certificate),
  );
  // Wall clock: that is what certificates are written in.
  if (Date.parse(own.validTo) < Date.now())
    throw new LeaseError('BAD_REQUEST', `tls.certificate: ${files.certificate} ended on ${own.validTo}`);
  const privateKey = parse(`tls.key: ${files.key} is no private key`, () => createPrivateKey(key));
  if (!own.checkPrivateKey(privateKey))
    throw new LeaseError('BAD_REQUEST', `tls.key: ${files.key} is not the key of ${files.certificate}`);
}

function parse<T>(otherwise: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new LeaseError('BAD_REQUEST', otherwise, { cause: error });
  }
}
