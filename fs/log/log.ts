/**
 * The state of a log that can be named, compared and proved: the first `size` bytes of the log have the Merkle root `root` (mdm), and were written under ownership
 * `epoch`. `size` always ends with a commit entry.
 */
export interface Position {
  epoch: number;
  size: number;
  root: Uint8Array;
}

export interface OpenLogOptions {
  /** Make the directory and an empty log when there is none. */
  create?: boolean;
  /** Write nothing, not even to cut a torn tail. */
  readOnly?: boolean;
  /** Root of the image tree below (32 bytes; absent = 'scratch'): recorded at creation, compared at open when given. */
  base?: Uint8Array;
}
