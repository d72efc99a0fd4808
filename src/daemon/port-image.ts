// How the image of a port travels between daemons and the command line.

/** A multiple of three, so that pieces of base64 have no padding between them. */
export const IMAGE_PIECE_BYTES = 384 * 1024;
/** native/switch/port_image.h: kPortImageBytesMax */
export const IMAGE_BYTES_MAX = 64 << 20;
