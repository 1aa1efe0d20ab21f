import { parentPort, workerData } from 'node:worker_threads';
import { toErrorData } from '../mdm/error.ts';
import { openTree } from '../layers/tree.ts';
import { openStore } from '../store/store.ts';
import type { FollowAnswer, FollowRequest, FollowWorkerData } from './follow.ts';
import { Follower } from './view/follower.ts';

// The thread that replays one copy of a log behind its receiver. Whatever it is asked before it could be opened fails with the reason.
const { roots, treeRoot, logDir } = workerData as FollowWorkerData;
const store = openStore(roots);
let follower: Follower | undefined;

function serve(request: FollowRequest): FollowAnswer {
  try {
    follower ??= new Follower(logDir, openTree(store, treeRoot), treeRoot ?? undefined);
    follower.follow(request.size);
    if (request.checkpoint) follower.checkpoint();
    return { error: null };
  } catch (error) {
    return { error: toErrorData(error) };
  }
}

parentPort!.on('message', (request: FollowRequest | null) => {
  if (request !== null) {
    parentPort!.postMessage(serve(request));
    return;
  }
  follower?.close();
  void store.close().finally(() => parentPort!.close());
});
