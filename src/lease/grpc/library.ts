// gRPC, loaded by its first use: it costs a third of the time to import this package, and most who do never speak it. It is a CommonJS
// module, so that this need not be awaited.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

export function grpc(): typeof import('@grpc/grpc-js') {
  return require('@grpc/grpc-js') as typeof import('@grpc/grpc-js');
}

export function protoLoader(): typeof import('@grpc/proto-loader') {
  return require('@grpc/proto-loader') as typeof import('@grpc/proto-loader');
}
