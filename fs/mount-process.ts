import { toErrorData, isPgError } from '../mdm/error.ts';
import { openTree } from '../layers/tree.ts';
import { exitWithoutTeardown } from '../store/end-process.ts';
import { openStore } from '../store/store.ts';
import { CONTROL_FD, MEMORY_FD, type MountOrder, PROTOCOL } from './control.ts';
import { ControlChannel } from './control-channel.ts';
import { AppendBuffer } from './log/append-buffer.ts';
import { type Log, openLog } from './log/log.ts';
import { RoomWriter } from './log/room-writer.ts';
import { MountWorker } from './mount-worker.ts';
import { mapSharedMemory } from './shared-memory.ts';
import { startThread } from './side-thread.ts';
import { openView } from './view/open-view.ts';

/** How long the log may still be in the hands of a server whose holder was killed. */
const LOCK_WAIT_MS = 2000;

/** Opens the log; while a server whose holder was killed puts it away, it waits. */
function openServed(order: MountOrder, base: Uint8Array | null): Log | null {
  const { logDir, readOnly } = order;
  if (logDir === null) return null;
  const writer = new RoomWriter(() => void startThread('./write-worker', () => ({ writer: writer.shared })));
  const buffer = readOnly ? {} : { buffer: new AppendBuffer(mapSharedMemory(MEMORY_FD, AppendBuffer.BYTES)), writer };
  const limit = order.limit === null ? {} : { limit: order.limit };
  const options = { create: !readOnly, readOnly, ...limit, ...(base === null ? {} : { base }), ...buffer };
  const deadline = performance.now() + LOCK_WAIT_MS;
  for (;;) {
    try {
      return openLog(logDir, options);
    } catch (error) {
      if (!isPgError(error, 'LOG_BUSY') || performance.now() > deadline) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    }
  }
}

async function serve(order: MountOrder, channel: ControlChannel): Promise<void> {
  const store = openStore(order.roots);
  try {
    const treeRoot = order.treeRoot === null ? null : Buffer.from(order.treeRoot, 'hex');
    const tree = openTree(store, treeRoot);
    const log = openServed(order, treeRoot);
    const view = openView(tree, store, log, order.agreement !== null);
    const worker = new MountWorker(order, channel, view, log);
    try {
      worker.run();
    } finally {
      view.close(worker.abandonCheckpoint());
      await worker.end();
    }
  } finally {
    await store.close();
  }
}

exitWithoutTeardown();
// It ends when its holder says so, or is gone. Whoever ends all processes of a session or of a control group means the holder, too.
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => {});
const channel = new ControlChannel(CONTROL_FD);
channel.send({ kind: 'ready', protocol: PROTOCOL });
const first = channel.next();
if (first?.kind === 'mount') {
  process.title = `pg fs ${first.order.label}`;
  const error = await serve(first.order, channel).then(() => null, toErrorData);
  channel.send({ kind: 'ended', error });
}
process.exit();
