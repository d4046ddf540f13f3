// What was typed for a key is done with once there is that key.
let madeAt = null;
const clear = () => {
  const fresh = element.querySelector('[data-focus]:has(.keys-fresh)');
  if (!fresh || fresh.dataset.focus === madeAt) return;
  madeAt = fresh.dataset.focus;
  document.querySelector('.keys-form')?.reset();
};
watch('value', clear);
// A key is plain text: it is copied as it stands. (`data-copy` makes addresses of what it copies.)
element.addEventListener('click', async event => {
  const clicked = event.target.closest('[data-copy-text]');
  if (!clicked) return;
  const shown = document.getElementById(clicked.dataset.copyText);
  try { await navigator.clipboard.writeText(shown.textContent); } catch {
    // Without https the clipboard's own way is closed; the old one still works.
    getSelection().selectAllChildren(shown);
    document.execCommand('copy');
  }
  clicked.textContent = clicked.dataset.copied;
});
