/** Spans as a tree, for people: who waited for what, on which host. */
import type { ReceivedSpan } from './otlp-decode.ts';

export interface SpanNode {
  readonly span: ReceivedSpan;
  readonly children: readonly SpanNode[];
}

export function treeOf(root: ReceivedSpan, spans: readonly ReceivedSpan[]): SpanNode {
  const children = spans
    .filter((s) => s.parentSpanId === root.spanId && s.traceId === root.traceId)
    .toSorted((a, b) => a.startMs - b.startMs);
  return { span: root, children: children.map((child) => treeOf(child, spans)) };
}

export function countOf(node: SpanNode): number {
  return 1 + node.children.reduce((sum, child) => sum + countOf(child), 0);
}

const microseconds = (ms: number): string => `${(ms * 1000).toFixed(0)} us`;

/** Lines of a tree: name, service, begin relative to the root, duration, and the attributes that are named. */
export function drawTree(root: SpanNode, attributes: readonly string[]): string[] {
  const lines: string[] = [];
  const draw = (node: SpanNode, prefix: string, childPrefix: string): void => {
    const { span } = node;
    const notes = attributes
      .filter((key) => span.attributes[key] !== undefined)
      .map((key) => `${key.replace('pagewake.', '')}=${String(span.attributes[key])}`);
    const name = `${prefix}${span.name}`.padEnd(22);
    const where = span.service.replace('pagewake-', '').padEnd(13);
    const begin = `+${microseconds(span.startMs - root.span.startMs)}`.padStart(10);
    lines.push(
      `${name} ${where} ${begin} ${microseconds(span.endMs - span.startMs).padStart(9)}  ${notes.join(' ')}`.trimEnd(),
    );
    for (const [i, child] of node.children.entries()) {
      const last = i === node.children.length - 1;
      draw(child, `${childPrefix}${last ? '└─ ' : '├─ '}`, `${childPrefix}${last ? '   ' : '│  '}`);
    }
  };
  draw(root, '', '');
  return lines;
}
