/** What a file is, in a tar and in a tree that is copied. */
export type EntryKind = 'file' | 'directory' | 'symlink' | 'hardlink' | 'fifo' | 'char' | 'block';

/** One file on its way from a tree or a tar into another. Names are latin1 strings: one character is one byte. */
export interface CopyEntry {
  /** Relative, parts separated by single slashes, without `.` and `..`; empty for the directory itself that everything goes into. */
  path: string;
  kind: EntryKind;
  /** Permission, set-id and sticky bits. */
  mode: number;
  uid: number;
  gid: number;
  mtimeMs: number;
  /** Bytes of a file. */
  size: number;
  /** Target of a symlink; `path` of the entry that a hard link is another name of. */
  linkName: string;
  /** Of a device, as stat(2) has it. */
  rdev: number;
  /** The bytes of a file, exactly `size` of them; to be read before the next entry is asked for. */
  read(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}
