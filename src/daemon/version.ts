// The version of the package, for whoever asks who he is talking to.
import { createRequire } from 'node:module';

export const VERSION = (createRequire(import.meta.url)('penstock/package.json') as { version: string })
  .version;
