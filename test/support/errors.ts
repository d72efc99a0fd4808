// An error as the layers below throw it: an errno name and a line for people.
export function errorWith(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}
