// Loads the protocol once: service definitions whose messages are plain objects in camel case, 64-bit integers as numbers (tokens
// stay below 2^53), absent optional fields absent.
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { ServiceClientConstructor, ServiceDefinition } from '@grpc/grpc-js';
import { grpc, protoLoader } from './library.js';

export interface Protocol {
  readonly LeaseAgent: ServiceClientConstructor & { readonly service: ServiceDefinition };
  readonly Coordination: ServiceClientConstructor & { readonly service: ServiceDefinition };
}

let loaded: Protocol | undefined;

export function protocol(): Protocol {
  if (loaded !== undefined) return loaded;
  const root = dirname(createRequire(import.meta.url).resolve('penstock/package.json'));
  const definition = protoLoader().loadSync(join(root, 'src/lease/grpc/lease.proto'), {
    longs: Number,
    defaults: false,
    arrays: true,
    objects: true,
    oneofs: false,
  });
  const tree = grpc().loadPackageDefinition(definition) as unknown as {
    penstock: { lease: { v1: Protocol } };
  };
  loaded = tree.penstock.lease.v1;
  return loaded;
}
