// What zod found wrong with a document, as one line a mistake that names the key: `ports.vm1.mtu: expected number`.
import { z } from 'zod';

export function explainIssues(schema: z.ZodType, issues: readonly z.core.$ZodIssue[]): string {
  return issues.flatMap((issue) => explain(schema, issue)).join('; ');
}

/** `rules[3].match.source` */
export function pathText(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, key) =>
      typeof key === 'number' ? `${text}[${key}]` : `${text}${text === '' ? '' : '.'}${String(key)}`,
    '',
  );
}

function explain(schema: z.ZodType, issue: z.core.$ZodIssue): string[] {
  const path = pathText(issue.path);
  const at = path === '' ? '' : `${path}: `;
  switch (issue.code) {
    case 'unrecognized_keys': {
      const allowed = allowedKeys(schema, issue.path);
      const hint = allowed.length === 0 ? '' : ` (allowed: ${allowed.join(', ')})`;
      return issue.keys.map((key) => `${at}unknown key "${key}"${hint}`);
    }
    case 'invalid_value':
      return [`${at}expected one of ${issue.values.map(String).join(', ')}`];
    case 'invalid_type': {
      const missing = issue.input === undefined && /undefined/.test(issue.message);
      return [`${at}${missing ? `missing, expected ${issue.expected}` : `expected ${issue.expected}`}`];
    }
    default:
      return [`${at}${issue.message}`];
  }
}

function unwrapped(schema: unknown): unknown {
  let inner = schema;
  while (inner instanceof z.ZodOptional || inner instanceof z.ZodDefault || inner instanceof z.ZodPrefault)
    inner = inner.unwrap();
  return inner;
}

function allowedKeys(root: z.ZodType, path: readonly PropertyKey[]): string[] {
  let schema: unknown = root;
  for (const key of path) {
    schema = unwrapped(schema);
    if (schema instanceof z.ZodArray) schema = schema.element;
    else if (schema instanceof z.ZodRecord) schema = schema.valueType;
    else if (schema instanceof z.ZodObject) schema = (schema.shape as Record<PropertyKey, unknown>)[key];
  }
  schema = unwrapped(schema);
  return schema instanceof z.ZodObject ? Object.keys(schema.shape as object) : [];
}
