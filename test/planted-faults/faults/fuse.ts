// Faults of the request path: what the session believes of names while they change.
import type { PlantedFault } from '../fault.js';

export const fuseFaults: readonly PlantedFault[] = [
  {
    name: 'overtaken-name-kept',
    breaks: 'an answer about a name is not kept when the name changed while it was under way',
    file: 'native/fuse/name_cache.cc',
    edits: [
      [
        'if (name_stamp(hash) > since || floor_ > since) {\n    ++counters_.refused_stale;\n    incomplete(parent);',
        'if (floor_ > since) {\n    ++counters_.refused_stale;\n    incomplete(parent);',
      ],
    ],
    caughtBy: {
      binary: 'fuse_name_cache_test',
      testCase: 'an answer that a change has overtaken is refused',
    },
  },
];
