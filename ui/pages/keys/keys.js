// Clears the form after the key was created.
let madeAt = null;
const clear = () => {
  const fresh = element.querySelector('[data-focus]:has(.keys-fresh)');
  if (!fresh || fresh.dataset.focus === madeAt) return;
  madeAt = fresh.dataset.focus;
  document.querySelector('.keys-form')?.reset();
};
watch('value', clear);
// A key is plain text and is copied unchanged. (`data-copy` copies addresses.)
element.addEventListener('click', async event => {
  const clicked = event.target.closest('[data-copy-text]');
  if (!clicked) return;
  const shown = document.getElementById(clicked.dataset.copyText);
  try { await navigator.clipboard.writeText(shown.textContent); } catch {
    // Without https the Clipboard API isn't available; the old command still works.
    getSelection().selectAllChildren(shown);
    document.execCommand('copy');
  }
  clicked.textContent = clicked.dataset.copied;
});
