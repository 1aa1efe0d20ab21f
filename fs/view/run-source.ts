/**
 * Where the bytes of a run come from, as one number: >= 0 the log, -1 zeros that are allocated, <= -2 the image's inode of number -source - 1.
 */

/** Source of zeros that fallocate(2) asked for: they count as blocks, but SEEK_DATA finds a hole. */
export const ZEROS = -1;
/** 2^24: payloads are shorter (MAX_PAYLOAD of the log). */
export const PAYLOAD_LIMIT = 16777216;

/** Source of a run in the log: it starts `delta` bytes into a payload of `payloadBytes`. */
export const logSource = (delta: number, payloadBytes: number): number => delta * PAYLOAD_LIMIT + payloadBytes;
export const deltaOf = (source: number): number => Math.floor(source / PAYLOAD_LIMIT);
export const payloadBytesOf = (source: number): number => source % PAYLOAD_LIMIT;

/** Source of a run in the content of the image's inode. */
export const lowerSource = (ino: number): number => -ino - 1;
export const lowerIno = (source: number): number => -source - 1;
export const isLog = (source: number): boolean => source >= 0;
