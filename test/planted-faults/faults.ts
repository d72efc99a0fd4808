// The list, by layer from the bottom up. docs/planted-faults.md shows it as a table.
import type { PlantedFault } from './fault.js';
import { accessFaults } from './faults/access.js';
import { cacheFaults } from './faults/cache.js';
import { extentFaults } from './faults/extent.js';
import { fuseFaults } from './faults/fuse.js';
import { gatewayFaults } from './faults/gateway.js';
import { kvFaults } from './faults/kv.js';
import { leaseFaults } from './faults/lease.js';
import { metadataFaults } from './faults/metadata.js';

export const LAYERS: Readonly<Record<string, readonly PlantedFault[]>> = {
  'Local cache': cacheFaults,
  'Extent store': extentFaults,
  'Request path': fuseFaults,
  'Key-value engine': kvFaults,
  Metadata: metadataFaults,
  Access: accessFaults,
  Gateway: gatewayFaults,
  'Lease agent': leaseFaults,
};

export const FAULTS: readonly PlantedFault[] = Object.values(LAYERS).flat();
