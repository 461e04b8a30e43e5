// Replaces the login of the application in docs/recipes/node.md.
export function currentUser(request) {
  const id = request.get('X-User');
  return id ? { id, name: `User ${id}` } : null;
}
