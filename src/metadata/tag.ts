// The first byte of every record that a transaction across nodes may lock. Absent or plain on a store with one node;
// an intent stands where the record stood while the outcome of such a transaction is not settled (see intent.ts).
export const Tag = {
  Plain: 1,
  Intent: 2,
} as const;
