// What is used of d3-scale and d3-shape, which ship no types.
declare module 'd3-scale' {
  export interface Scale {
    (value: number): number;
    domain(domain: readonly number[]): Scale;
    range(range: readonly number[]): Scale;
    nice(): Scale;
    ticks(count?: number): number[];
    tickFormat(count?: number, specifier?: string): (value: number) => string;
  }
  export function scaleLinear(): Scale;
  export function scaleLog(): Scale;
}

declare module 'd3-shape' {
  export interface Line<T> {
    (points: readonly T[]): string | null;
    x(get: (point: T) => number): Line<T>;
    y(get: (point: T) => number): Line<T>;
  }
  export interface Area<T> {
    (points: readonly T[]): string | null;
    x(get: (point: T) => number): Area<T>;
    y0(get: (point: T) => number): Area<T>;
    y1(get: (point: T) => number): Area<T>;
  }
  export function line<T>(): Line<T>;
  export function area<T>(): Area<T>;
}
