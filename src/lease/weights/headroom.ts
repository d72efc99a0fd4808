// Equal utilisation is not equal waiting: where an operation takes twice as long, the same utilisation makes it wait twice as long
// too. Slow producers are therefore left more headroom; producers that are about alike are kept equally busy.

/**
 * The utilisation a producer should have when its fleet has `fleet` on average, 0 to 1: its headroom 1 - utilisation is greater by
 * (relative service time / alike)^exponent, for what is slower than `alike` times the median; at full load nobody has any. Source:
 * the square-root rule of capacity (Kleinrock, "Communication Nets", 1964) and of load (Tantawi and Towsley, "Optimal static load
 * balancing in distributed computer systems", JACM 32(2), 1985): delay is least when headroom grows with the time of service.
 */
export function targetUtilisation(
  fleet: number,
  relativeService: number,
  alike: number,
  exponent: number,
): number {
  if (!(relativeService > alike && fleet < 1)) return fleet;
  return Math.max(0, 1 - (1 - fleet) * (relativeService / alike) ** exponent);
}
