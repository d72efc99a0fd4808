// An opaque value that carries a native FileIo (native/fuse/file_io.h) from its holder to a FUSE session; see
// bindings/file_io_handle.h. It owns a share of what it carries: dropping it is enough.
declare const fileIo: unique symbol;

export type FileIoHandle = object & { readonly [fileIo]: true };
