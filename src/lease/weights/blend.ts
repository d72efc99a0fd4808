// Two witnesses and a prior become one number. Estimates are ratios to the prior, so blending is done on logarithms: a
// witness without confidence contributes the factor 1, which is the prior itself.

/**
 * The factor by which an estimate moves the prior: ratio^(share x confidence). Source: logarithmic opinion pool (Genest and
 * Zidek, "Combining probability distributions", 1986): externally Bayesian, and no witness can outvote by scale.
 */
export function blendFactor(ratio: number, share: number, confidence: number): number {
  const exponent = share * confidence;
  if (exponent === 0 || ratio === 1) return 1;
  return Math.exp(exponent * Math.log(ratio));
}
