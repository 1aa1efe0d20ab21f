import { Model, type ModelNode } from '../view/model.ts';

/** A model that goes its own way from here. */
export function copyModel(model: Model): Model {
  const copies = new Map<ModelNode, ModelNode>();
  const copyOf = (node: ModelNode): ModelNode => {
    const known = copies.get(node);
    if (known !== undefined) return known;
    const copy: ModelNode = {
      ...node,
      data: Buffer.from(node.data),
      xattrs: new Map(node.xattrs),
      names: new Map(),
      parent: undefined,
    };
    copies.set(node, copy);
    for (const [name, child] of node.names) {
      const copied = copyOf(child);
      if (child.parent === node) copied.parent = copy;
      copy.names.set(name, copied);
    }
    return copy;
  };
  const copy = new Model();
  copy.root = copyOf(model.root);
  return copy;
}
