// What we use of the raw-socket package, which has no types of its own. Errors of send carry `code`.
declare module 'raw-socket' {
  import type { EventEmitter } from 'node:events';

  export interface RawSocket extends EventEmitter {
    send(
      buffer: Buffer,
      offset: number,
      length: number,
      address: string,
      callback: (error: Error | null, bytes: number) => void,
    ): RawSocket;
    setOption(level: number, option: number, value: number): void;
    close(): RawSocket;
    on(event: 'message', listener: (buffer: Buffer, source: string) => void): this;
    on(event: 'error', listener: (error: Error) => void): this;
  }

  const raw: {
    readonly AddressFamily: { readonly IPv4: number; readonly IPv6: number };
    readonly Protocol: { readonly ICMP: number; readonly ICMPv6: number };
    createSocket(options: {
      readonly protocol: number;
      readonly addressFamily: number;
      readonly bufferSize?: number;
    }): RawSocket;
    createChecksum(buffer: Buffer): number;
  };
  export default raw;
}
